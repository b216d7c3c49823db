"""An image classifier of transformers, some of whose labels mean that an image must not be shown."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from workers.safety.folder import Found, Look
from workers.safety.weights import load_whole


def load(found: Found) -> Look:
    """Give whether a square has one of the labels that flag it, with at least the threshold's probability.

    Raises what `load_whole` does.
    """
    model = load_whole(AutoModelForImageClassification, found.weights, trust_remote_code=False)
    processor = AutoImageProcessor.from_pretrained(
        found.processor, backend="pil", local_files_only=True, trust_remote_code=False
    )
    flags = [index for index, label in model.config.id2label.items() if label in found.labels]

    def look(squares: Sequence[Image.Image]) -> bool:
        pixels = processor(list(squares), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            logits = model(pixel_values=pixels).logits
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("its verdict is no number")
        if found.together:
            scores = logits.softmax(dim=-1)[:, flags].sum(dim=-1)
        else:
            scores = logits[:, flags].sigmoid().amax(dim=-1)
        return bool((scores >= found.threshold).any())

    return look
