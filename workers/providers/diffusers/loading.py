"""From a profile to a pipeline in memory. Only files of this machine are read, and only safetensors."""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file

from app.domain.profiles import Family, Guidance, Lora, Profile, Weights
from app.domain.spec import Operation
from app.errors import ModelUnavailable
from app.log import get_logger
from app.weights.folders import folder_of
from app.weights.needs import needs
from workers.providers.diffusers.device import Device, is_device_fault, is_out_of_memory
from workers.providers.diffusers.families import PARTS, PIPELINES, scheduler_for

log = get_logger(__name__)

_FAULTS: Final = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)
"""What missing, torn and foreign files make the libraries raise; seen: the first three and the last two."""
_LORA_FILE: Final = "pytorch_lora_weights.safetensors"
"""What diffusers calls an adapter's file."""
_NARROWS: Final = re.compile(r"(lora_A|down)\.(\w+\.)?weight$")
"""The matrix of an adapted layer that narrows: `lora_A.weight`, `lora_down.weight`, `lora.down.weight`."""


def load(profile: Profile, *, folder: Path, device: Device) -> Any:
    """Give the text-to-image pipeline of a profile, on the device, or for offloading in main memory.

    Args:
        folder: the models folder.

    Raises:
        ModelUnavailable: files are missing, broken, or another model's; the message says which.
        torch.OutOfMemoryError, RuntimeError: the device's fault, not the files'.
    """
    try:
        pipe = _assembled(profile, _present(folder, profile), device=device, folder=folder)
    except _FAULTS as error:
        if is_out_of_memory(error) or is_device_fault(error):
            raise
        text = f"{type(error).__name__}: {error}"
        log.warning("model_unavailable", profile=profile.name, error=text)
    else:
        return pipe
    # Outside of the handler: the error's frames hold what was loaded so far.
    raise ModelUnavailable(f"profile {profile.name} cannot be loaded: {text}")


def _present(folder: Path, source: Weights | Profile) -> Path:
    where = folder_of(folder, source.source, source.revision)
    if not where.is_dir():
        raise FileNotFoundError(f"there is no folder {where}; see `darkroom models pull`")
    return where


def _assembled(profile: Profile, where: Path, *, device: Device, folder: Path) -> Any:
    _check_family(profile, where)
    _check_files(profile, folder)
    place: dict[str, Any] = {"dtype": device.dtype(profile)}
    if profile.offload == "none":
        # Straight to where it is used: by way of main memory an H100 took 4.9 s instead of 1.1.
        place["device_map"] = str(device.place)
    replaced = {"unet": profile.unet, "vae": profile.vae}
    parts = {
        name: _part(kind, where, name, variant=profile.variant, **place)
        if (instead := replaced.get(name)) is None
        else _replacement(kind, name, instead, where, folder=folder, **place)
        for name, kind in PARTS[profile.family].items()
    }
    pipe = PIPELINES[profile.family][Operation.TEXT_TO_IMAGE].from_pretrained(
        str(where), local_files_only=True, dtype=place["dtype"], **parts, **_left_out(where)
    )
    _check_complete(pipe)
    _check_guidance(pipe, profile)
    _prepare(pipe, profile, dtype=place["dtype"])
    _lay_on(pipe, profile.loras, folder=folder)
    if profile.offload == "model":
        pipe.enable_model_cpu_offload(device=device.place)
    return pipe


def _check_files(profile: Profile, folder: Path) -> None:
    """Refuse a model that is not all there: the libraries' own words do not always tell what is missing."""
    own = needs(profile, folder)[0]
    if lacks := own.missing():
        raise FileNotFoundError(f"{own.folder} lacks {', '.join(lacks)}")


def _check_family(profile: Profile, where: Path) -> None:
    """Refuse another family's files: diffusers loads a UNet into any pipeline that has room for one."""
    found = json.loads((where / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    kinds = {kind.__name__ for kind in PIPELINES[profile.family].values()}
    if found not in kinds:
        raise ValueError(f"{where} holds a {found}, which is no {profile.family}")


def _left_out(where: Path) -> dict[str, None]:
    """Name the parts that are not wanted: pictures are checked elsewhere, for every provider alike."""
    index = json.loads((where / "model_index.json").read_text(encoding="utf-8"))
    unused = ("safety_checker", "feature_extractor", "image_encoder")
    return {name: None for name in unused if name in index}


def _part(kind: Any, where: Path, name: str, *, variant: str | None, **place: Any) -> Any:
    """Give a part with exactly the weights of its folder.

    transformers fills in weights that a file lacks with random ones, and only logs it.
    """
    in_variant = variant if variant and any((where / name).glob(f"*.{variant}.*")) else None
    with _naming(where / name):
        model, report = kind.from_pretrained(
            str(where),
            subfolder=name,
            variant=in_variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **place,
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"it lacks {len(missing)} weights, {missing[0]} among them")
    return model


@contextmanager
def _naming(part: Path) -> Iterator[None]:
    """Have errors say whose files are wrong; the libraries' own do not always."""
    try:
        yield
    except _FAULTS as error:
        if is_out_of_memory(error) or is_device_fault(error) or str(part) in str(error):
            raise
        # What diffusers raises of a weight that is in no file.
        what = "it lacks weights" if isinstance(error, NotImplementedError) else error
        raise ValueError(f"{part}: {what}") from error


def _replacement(kind: Any, name: str, weights: Weights, where: Path, *, folder: Path, **place: Any) -> Any:
    """Give the UNet or VAE that takes the place of the model's own."""
    found = _present(folder, weights)
    if weights.file is None:
        if (found / name).is_dir():
            return _part(kind, found, name, variant=None, **place)
        return _part(kind, found.parent, found.name, variant=None, **place)
    config = kind.load_config(str(where), subfolder=name, local_files_only=True)
    with init_empty_weights():
        model = kind.from_config(config)
    with _naming(found / weights.file):
        state = load_file(found / weights.file, device=place.get("device_map", "cpu"))
        model.load_state_dict({key: tensor.to(place["dtype"]) for key, tensor in state.items()}, assign=True)
    return model.eval()


def _check_complete(pipe: Any) -> None:
    """Refuse a model with parts missing: where a tokenizer's folder is gone diffusers leaves it empty."""
    for name, part in pipe.components.items():
        if "tokenizer" in name and (part is None or not _reads(part)):
            raise ValueError(f"its {name} has no vocabulary")
        if isinstance(part, torch.nn.Module) and any(weight.is_meta for weight in part.parameters()):
            raise ValueError(f"its {name} lacks weights")


def _check_guidance(pipe: Any, profile: Profile) -> None:
    """Refuse Flux weights under the other kind's name: dev without its guidance draws something else."""
    if profile.family is not Family.FLUX:
        return
    embeds = bool(pipe.transformer.config.guidance_embeds)
    if embeds != (profile.guidance is Guidance.EMBEDDED):
        kind = Guidance.EMBEDDED if embeds else Guidance.NONE
        raise ValueError(f"its transformer wants `guidance: {kind}`, not {profile.guidance}")


def _reads(tokenizer: Any) -> bool:
    """Whether it knows a letter: where a vocabulary's file is gone, the libraries make an empty one."""
    read = tokenizer("a", add_special_tokens=False).input_ids
    return bool(read) and tokenizer.unk_token_id not in read


def _prepare(pipe: Any, profile: Profile, *, dtype: Any) -> None:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler_for(profile.scheduler, pipe.scheduler)
    if dtype is torch.bfloat16 and "force_upcast" in pipe.vae.config:
        # It is for float16, whose range SDXL's VAE leaves; bfloat16 has float32's.
        pipe.vae.register_to_config(force_upcast=False)
    pipe.vae.enable_slicing()
    for part in (pipe.vae, getattr(pipe, "unet", None)):
        if part is not None:
            part.to(memory_format=torch.channels_last)


def _lay_on(pipe: Any, loras: tuple[Lora, ...], *, folder: Path) -> None:
    """Lay adapters over the weights. They are never fused: that drifts, and cannot be taken back exactly."""
    names = [f"lora{number}" for number in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        found, file = _present(folder, lora), lora.file or _LORA_FILE
        from_file = {"weight_name": file, "use_safetensors": True, "local_files_only": True}
        with _naming(found / file), warnings.catch_warnings():
            # That there are several is what was asked for.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`", category=UserWarning)
            pipe.load_lora_weights(str(found), adapter_name=name, **from_file)
            _check_fit(pipe, name, pipe.lora_state_dict(str(found), **from_file))
    if loras:
        pipe.set_adapters(names, adapter_weights=[lora.weight for lora in loras])


def _check_fit(pipe: Any, name: str, read: Any) -> None:
    """Refuse an adapter of which a part fits nothing: the libraries lay on what does, and only log it.

    Each adapted layer has one matrix that narrows, whatever the trainer called it.

    Args:
        read: its weights by diffusers' names, where layers that the trainer had fused are several; for some
            families beside their scales.
    """
    weights = read[0] if isinstance(read, tuple) else read
    there = sum(_NARROWS.search(key) is not None for key in weights)
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    laid = sum(
        f".lora_A.{name}." in f".{weight}" for module in modules for weight, _ in module.named_parameters()
    )
    if laid < there:
        raise ValueError(f"{there - laid} of this adapter's {there} layers fit nothing in the model")
    if not laid:
        raise ValueError("this adapter fits nothing in the model")
