"""What this machine lacks to draw a model: the engine, weights, a key; and what to do about it."""

import importlib.util
from dataclasses import dataclass
from typing import Final

from app.domain.catalog import Catalog, Model, Target
from app.settings import Settings
from app.weights.hub import INSTALL
from app.weights.needs import needs

_ENGINE: Final = "diffusers"


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Why a target cannot draw here, and the remedy, each half a sentence."""

    says: str
    remedy: str


def engine_lack() -> Lack | None:
    """Give whether the GPU engine is not installed; quick, as it imports nothing."""
    absent = [name for name in ("torch", "diffusers", "transformers") if _is_absent(name)]
    if not absent:
        return None
    return Lack(says=f"the GPU engine is not installed ({', '.join(absent)})", remedy=INSTALL)


def _is_absent(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def lack(target: Target, catalog: Catalog, settings: Settings) -> Lack | None:
    """Give the first thing that a target lacks on this machine; None: it can draw here."""
    if target.provider == _ENGINE:
        return engine_lack() or weights_lack(target, catalog, settings)
    if catalog.upstream(target.provider) is None or target.provider in settings.keys_of_upstreams:
        return None
    return Lack(
        says=f"no key is set for {target.provider}", remedy=f"DARKROOM_UPSTREAM_KEYS={target.provider}=KEY"
    )


def weights_lack(target: Target, catalog: Catalog, settings: Settings) -> Lack | None:
    """Give which weights a target of our GPU engine lacks below DARKROOM_MODELS_FOLDER; None: none."""
    profile = catalog.profile(target.model)
    for need in needs(profile, settings.models_folder):
        if lacks := need.missing():
            what = "is not there" if not need.folder.is_dir() else f"lacks {', '.join(lacks)}"
            pull = f"darkroom models pull {profile.name}"
            return Lack(
                says=f"{need.folder} {what}", remedy=pull if need.can_be_pulled else "complete that folder"
            )
    return None


def lacks_of(model: Model, catalog: Catalog, settings: Settings) -> list[tuple[Target, Lack]]:
    """Give what each target of a model lacks here; those that lack nothing are not among them."""
    found = ((target, lack(target, catalog, settings)) for target in model.targets)
    return [(target, one) for target, one in found if one is not None]
