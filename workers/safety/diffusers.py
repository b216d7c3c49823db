"""The safety checker of Stable Diffusion: images compared with concepts that must not be shown."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import safety_checker
from PIL import Image
from transformers import CLIPImageProcessorPil

from workers.safety.folder import Found, Look
from workers.safety.weights import load_whole


def load(found: Found) -> Look:
    """Give what the checker in a folder says, as diffusers' own pipelines ask it.

    Raises what `load_whole` does.
    """
    # It warns of each image it flags, and promises a black one in its place: not its to promise here.
    logging.getLogger(safety_checker.__name__).setLevel(logging.ERROR)
    model = load_whole(safety_checker.StableDiffusionSafetyChecker, found.weights)
    processor = CLIPImageProcessorPil.from_pretrained(found.processor, local_files_only=True)

    def look(squares: Sequence[Image.Image]) -> bool:
        pixels = processor(list(squares), return_tensors="pt")["pixel_values"]
        # It blackens what it flags of `images`; ours are censored elsewhere.
        blackened = [np.zeros((1, 1, 3)) for _ in squares]
        with torch.inference_mode():
            _, verdicts = model(clip_input=pixels, images=blackened)
        return any(verdicts)

    return look
