"""The weights of a model that checks images: all of them, and none made up."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging


def load_whole(kind: Any, folder: Path, **options: object) -> Any:
    """Give a model with exactly the weights of a folder, in float32 on the CPU.

    transformers fills in weights that a file lacks with random ones, and only logs it; and no comparison
    with a NaN is true. Either way a checker would pass everything.

    Args:
        kind: the class whose `from_pretrained` loads it.

    Raises:
        OSError: the files cannot be read, or are not the weights of this model.
        ValueError: a weight is missing, or is not a number.
    """
    logging.disable_progress_bar()  # a worker's log is no terminal
    try:
        model, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except SafetensorError as error:
        raise OSError(f"the weights in {folder} are broken: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} of the model's weights, {missing[0]} among them")
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise ValueError(f"{folder} has weights that are no numbers")
    return model.eval()
