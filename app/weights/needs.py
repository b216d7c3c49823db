"""Which files the GPU engine needs of a profile, and which of them are there.

Of a repository only those are taken: it may hold the same weights in five forms.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.domain.profiles import Family, Profile, Weights
from app.weights.folders import folder_of

_WEIGHTS: Final = re.compile(
    r"(?:diffusion_pytorch_model|model)"
    r"(?:\.(?P<early>[a-z]\w*))?(?:-(?P<number>\d{5})-of-(?P<count>\d{5}))?(?:\.(?P<late>[a-z]\w*))?"
    r"\.safetensors"
)
_TEXT: Final = (".json", ".txt", ".model")
"""Ends of configurations, vocabularies and sentencepiece models."""
_INDEX: Final = "model_index.json"
_SD15: Final = ("unet", "vae", "text_encoder")
_WITH_WEIGHTS: Final = {
    Family.SD15: _SD15,
    Family.SDXL: (*_SD15, "text_encoder_2"),
    Family.FLUX: ("transformer", "vae", "text_encoder", "text_encoder_2"),
}
_WITHOUT: Final = {
    Family.SD15: ("scheduler", "tokenizer"),
    Family.SDXL: ("scheduler", "tokenizer", "tokenizer_2"),
    Family.FLUX: ("scheduler", "tokenizer", "tokenizer_2"),
}
_LORA: Final = "pytorch_lora_weights.safetensors"
"""The name that diffusers gives to an adapter."""
_IF_THERE: Final = ("feature_extractor",)
"""Parts that a pipeline reads where its index names them."""
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A subfolder of a model in diffusers' layout; "" is the folder itself.

    Attributes:
        weighs: whether weights are needed; the configuration always is.
        variant: of its weights; where there is none of it, the plain ones do.
        needed: whether the model is incomplete without it.
    """

    name: str
    weighs: bool = False
    variant: str | None = None
    needed: bool = True

    def take(self, names: Sequence[str]) -> list[str]:
        """Give which of these files, named from the model's folder, belong to what is needed of this part."""
        prefix = f"{self.name}/" if self.name else ""
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        inside = [name for name in inside if "/" not in name]
        taken = [name for name in inside if name.endswith(_TEXT)]
        return [prefix + name for name in (*taken, *(self._weights(inside) if self.weighs else ()))]

    def _weights(self, inside: Sequence[str]) -> list[str]:
        found: dict[str | None, list[str]] = {}
        for name in inside:
            if (match := _WEIGHTS.fullmatch(name)) is not None:
                found.setdefault(match["early"] or match["late"], []).append(name)
        return found.get(self.variant) or found.get(None, [])

    def missing(self, names: Sequence[str]) -> list[str]:
        """Give what is not among these files, as patterns an operator can look for."""
        if not self.needed:
            return []
        prefix = f"{self.name}/" if self.name else ""
        taken = self.take(names)
        lacks = [] if any(name.endswith(_TEXT) for name in taken) else [f"{prefix}*.json"]
        if self.weighs:
            weights = [name for name in taken if name.endswith(".safetensors")]
            lacks += _incomplete(weights) if weights else [f"{prefix}*.safetensors"]
        return lacks


def _incomplete(names: Sequence[str]) -> list[str]:
    """Give the missing ones of weights in several files."""
    lacks = []
    for name in names[:1]:
        match = _WEIGHTS.fullmatch(name.rpartition("/")[2])
        assert match is not None
        if match["count"]:
            this = f"-{match['number']}-of-"
            all_ = (name.replace(this, f"-{number:05}-of-") for number in range(1, int(match["count"]) + 1))
            lacks = [one for one in all_ if one not in names]
    return lacks


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a profile needs of one folder.

    Attributes:
        source: as the profile names it.
        folder: where it is, or will be.
        parts: of diffusers' layout.
        files: by name.
        whole: a pipeline, with an index of its parts.
    """

    source: str
    revision: str | None
    folder: Path
    parts: tuple[Part, ...] = ()
    files: tuple[str, ...] = ()
    whole: bool = False

    @property
    def can_be_pulled(self) -> bool:
        """Whether `source` is the id of a repository, not a folder of the operator's own."""
        return _REPOSITORY.fullmatch(self.source) is not None and self.folder.name.startswith(
            self.source.replace("/", "--")
        )

    def take(self, names: Iterable[str]) -> list[str]:
        """Give which files of a repository are needed, sorted."""
        known = sorted(names)
        taken = {name for part in self.parts for name in part.take(known)}
        index = {_INDEX} if self.whole else set()
        return [name for name in known if name in taken | index | set(self.files)]

    def missing(self, names: Iterable[str] | None = None) -> list[str]:
        """Give what is not there, as names or patterns below `folder`; empty: nothing.

        Args:
            names: the files there are; None: those in `folder`.
        """
        known = sorted(_files_in(self.folder) if names is None else names)
        wanted = [*([_INDEX] if self.whole else []), *self.files]
        lacks = [name for name in wanted if name not in known]
        return [*lacks, *(name for part in self.parts for name in part.missing(known))]

    def present(self) -> list[Path]:
        """Give the needed files that are there."""
        return [self.folder / name for name in self.take(_files_in(self.folder))]


def _files_in(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    ]


def needs(profile: Profile, root: Path) -> list[Need]:
    """Give all that a profile needs, one entry for each folder."""
    replaced = {name for name in ("unet", "vae") if getattr(profile, name) is not None}
    parts = [
        *(
            # A part that is replaced still has its configuration here, and nothing else.
            Part(name=name, weighs=name not in replaced, variant=profile.variant)
            for name in _WITH_WEIGHTS[profile.family]
        ),
        *(Part(name=name) for name in _WITHOUT[profile.family]),
        *(Part(name=name, needed=False) for name in _IF_THERE),
    ]
    found = [_need(profile, root, parts=tuple(parts))]
    given = {"unet": profile.unet, "vae": profile.vae}
    found += [_replacement(name, one, root) for name, one in given.items() if one is not None]
    return [*found, *(_need(one, root, file=_LORA) for one in profile.loras)]


def _replacement(name: str, weights: Weights, root: Path) -> Need:
    """Give what the UNet or VAE needs that takes the place of a model's own: a file, or a folder's whole.

    A whole pipeline's folder will do as well, of which only that part is taken.
    """
    if weights.file is not None:
        return _need(weights, root)
    inside = (folder_of(root, weights.source, weights.revision) / name).is_dir()
    return _need(weights, root, parts=(Part(name=name if inside else "", weighs=True),))


def _need(
    of: Profile | Weights, root: Path, *, parts: tuple[Part, ...] = (), file: str | None = None
) -> Need:
    file = (of.file if isinstance(of, Weights) else None) or file
    return Need(
        source=of.source,
        revision=of.revision,
        folder=folder_of(root, of.source, of.revision),
        parts=parts,
        files=(file,) if file else (),
        whole=isinstance(of, Profile),
    )
