"""Checkers of images for tests: red must not be shown, everything else may be.

The models are tiny and of random weights, but for the last layer: that one is computed so that they tell red
from other colours. So what they say depends on every step between the image and the verdict.
"""

import io
import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.settings import Settings, load
from tests.servers.strangers import Script, Stranger, answers

BAD, GOOD = "red", "blue"
HARMLESS = ("blue", "white", "black", "grey", "green")
_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "image_size": 32,
    "patch_size": 8,
}


def picture(colour: str, size: tuple[int, int] = (48, 48), mode: str = "RGB") -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", size, colour).convert(mode)


def settings_with(**changes: object) -> Settings:
    """Settings that name no server that is there."""
    given = {
        "database_url": "postgresql://nobody@127.0.0.1:1/none",
        "broker_url": "redis://127.0.0.1:1",
        "s3_endpoint": "http://127.0.0.1:1",
        "s3_access_key": "x",
        "s3_secret_key": "x",
        "secret_key": "x" * 32,
    }
    return load(Path("no-such-state"), **given, **changes)


def service() -> Script:
    """A safety service that decodes what it is sent and looks for a red pixel."""

    def answer(host: Stranger, line: socket.socket) -> None:
        body = host.here.request.partition(b"\r\n\r\n")[2]
        with Image.open(io.BytesIO(body), formats=["PNG"]) as sent:
            colours = np.asarray(sent.convert("RGB"), np.int16)
        found = bool(((colours[..., 0] > 200) & (colours[..., 1:].max(axis=-1) < 60)).any())
        answers(json.dumps({"flagged": found}).encode(), "Content-Type: application/json")(host, line)

    return answer


def safety_checker(folder: Path, *, margin: float | None = None) -> Path:
    """Build a pipeline's folder with nothing in it but a safety checker and its feature extractor.

    Args:
        margin: what every concept's threshold is, instead of one that tells red from other colours:
            2 flags nothing, -2 everything.
    """
    import torch  # noqa: PLC0415 - only tests that have it come here
    from diffusers.pipelines.stable_diffusion.safety_checker import (  # noqa: PLC0415 - as above
        StableDiffusionSafetyChecker,
    )
    from transformers import CLIPConfig, CLIPImageProcessorPil  # noqa: PLC0415 - as above

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=_SMALL, projection_dim=16)).eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.inference_mode():
        seen = model.visual_projection(model.vision_model(_pixels(processor))[1])
        seen = torch.nn.functional.normalize(seen)
        concept = seen[0] - seen[1:].mean(dim=0)
        likeness = torch.nn.functional.cosine_similarity(seen, concept[None])
        limit = float(likeness[0] + likeness[1:].max()) / 2 if margin is None else margin
        model.concept_embeds.copy_(concept.expand_as(model.concept_embeds))
        model.concept_embeds_weights.fill_(limit)
        model.special_care_embeds_weights.fill_(2)
    model.save_pretrained(folder / "safety_checker")
    processor.save_pretrained(folder / "feature_extractor")
    return folder


def classifier(folder: Path, *, labels: Sequence[str] = ("nsfw", "normal"), **options: object) -> Path:
    """Build the folder of a classifier whose first label is for red, and whose others are for the rest.

    The first label's probability is 0.98 for red and less than 0.02 for the other colours.
    """
    import torch  # noqa: PLC0415 - only tests that have it come here
    from transformers import (  # noqa: PLC0415 - as above
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessorPil,
    )

    names = dict(enumerate(labels))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ViTForImageClassification(ViTConfig(**_SMALL, id2label=names, **options)).eval()
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    with torch.inference_mode():
        seen = model.vit(_pixels(processor))[0][:, 0]
        direction = seen[0] - seen[1:].mean(dim=0)
        heights = seen @ direction
        lowest, highest = heights[0], heights[1:].max()
        scale = 8 / (lowest - highest)
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()
        model.classifier.weight[0] = direction * scale
        model.classifier.bias[0] = -(lowest + highest) / 2 * scale
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def copied(folder: Path, to: Path, weights: bytes | None = None) -> Path:
    """Copy a model's folder, with other bytes for weights."""
    shutil.copytree(folder, to)
    if weights is not None:
        for file in to.rglob("*.safetensors"):
            file.write_bytes(weights)
    return to


def _pixels(processor: Any) -> Any:
    squares = [picture(colour, (512, 512)) for colour in (BAD, *HARMLESS)]
    return processor(squares, return_tensors="pt")["pixel_values"]
