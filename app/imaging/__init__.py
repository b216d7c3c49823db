"""Pictures as bytes and as pixels: checked at the door, made ready for a provider, encoded for the store.

Pure functions. The door calls `inspect`, which reads headers only; pixels are decoded by workers alone.
"""

from app.imaging.censor import censored, stamped
from app.imaging.encode import encode
from app.imaging.header import FORMATS, MAX_PIXELS, MAX_SIDE, Header, inspect
from app.imaging.pixels import composite, decode, flatten, prepare_image, prepare_mask

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "Header",
    "censored",
    "composite",
    "decode",
    "encode",
    "flatten",
    "inspect",
    "prepare_image",
    "prepare_mask",
    "stamped",
]
