"""A given picture and a new drawing made into one: image_to_image and inpaint."""

import numpy as np
from PIL import Image

from app.imaging import composite
from workers.providers.sketch.colour import Field
from workers.providers.sketch.field import blur, smooth


def reworked(given: Image.Image, drawing: Image.Image, *, strength: float) -> Image.Image:
    """Give the picture on its way to the drawing, both RGB of the same size.

    First the picture takes on the drawing's colours, then the drawing comes through with the picture's edges
    in it. Strength 0.0 is the picture itself, bit for bit, and 1.0 the drawing; the way between has no turn,
    so that more strength means more difference.
    """
    if strength <= 0:
        return given.copy()
    old, new = _planes(given), _planes(drawing)
    edges = np.stack([channel - blur(channel, 0.02 * max(given.size)) for channel in old]).mean(axis=0)
    toned = _toned(old, new)
    target = toned + strength**2 * (new + (1 - strength) * edges - toned)
    return _picture(old + strength * (target - old))


def repainted(given: Image.Image, drawing: Image.Image, mask: Image.Image, *, strength: float) -> Image.Image:
    """Give the picture with the drawing where the mask is 255, and not one level changed where it is 0.

    Inside, near the border, the drawing melts into the colours that surround the hole, so that no hard seam
    shows; the transition lies in the mask alone. Strength below 1.0 lets the old picture shine through.

    Args:
        given: RGB.
        drawing: RGB, as large as the mask's bounding box, so that what it shows lies in the hole.
        mask: L, only 0 and 255, as large as `given`.
        strength: 0.0 to 1.0.
    """
    box = mask.getbbox()
    if strength <= 0 or box is None:
        return given.copy()
    placed = given.copy()
    placed.paste(drawing, box)
    old, new = _planes(given), _planes(placed)
    hole = np.asarray(mask, np.float32) / 255
    fresh = new if hole.all() else _melted(old, new, hole)
    return composite(_picture(old + strength * (fresh - old)), given, mask)


def _melted(old: Field, new: Field, hole: Field) -> Field:
    """Give the new picture, its light drawn towards its surroundings' and its border dissolved in them."""
    inner = np.clip(blur(hole, 0.12 * float(np.sqrt(hole.sum()))) * 2 - 1, 0, 1)
    inner = smooth(0.0, 0.8, inner / max(float(inner.max()), 1e-3))
    around = _spread(old, 1 - hole)
    mood = np.stack([blur(channel, 0.2 * max(hole.shape)) for channel in new])
    lit = new + 0.3 * (around - mood)
    melted: Field = around + inner * (lit - around)
    return melted


def _spread(planes: Field, known: Field) -> Field:
    """Give the colours of the known places (1.0) spread softly over the unknown (0.0)."""
    longest = max(known.shape)
    mean = (planes * known).sum(axis=(1, 2)) / known.sum()
    total = np.ones_like(planes) * (mean * 1e-10)[:, None, None]
    weight = np.full_like(known, 1e-10)
    for share in (0.02, 0.06, 0.2, 0.6):
        # Wider neighbourhoods count a thousandth of the next narrower one, so they matter only far inside.
        trust = 10 ** (-3 * np.log2(share / 0.02) / np.log2(3.2))
        total += trust * np.stack([blur(channel * known, share * longest) for channel in planes])
        weight += trust * np.clip(blur(known, share * longest), 0, None)
    spread: Field = np.clip(total / weight, 0, 1)
    return spread


def _toned(planes: Field, model: Field) -> Field:
    """Give the picture with the mean and spread of each channel of the model (Reinhard et al. 2001)."""
    axes = (1, 2)
    mean, spread = planes.mean(axis=axes, keepdims=True), planes.std(axis=axes, keepdims=True)
    wanted, reach = model.mean(axis=axes, keepdims=True), model.std(axis=axes, keepdims=True)
    toned: Field = wanted + (planes - mean) * np.clip(reach / (spread + 1e-3), 0.3, 3.0)
    return toned


def _planes(image: Image.Image) -> Field:
    return np.ascontiguousarray(np.moveaxis(np.asarray(image, np.float32) / 255, 2, 0))


def _picture(planes: Field) -> Image.Image:
    levels = np.clip(planes * 255 + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(levels, 0, 2)))
