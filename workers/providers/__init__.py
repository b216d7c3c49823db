"""Who draws. A provider's module is imported only by a worker that gets a job for it."""

import functools
import importlib
from typing import Final

from app.errors import ProviderRefused
from workers.providers.base import Provider

_PROVIDERS: Final = {
    "pillow": "workers.providers.pillow:Pillow",
    "sketch": "workers.providers.sketch:Sketch",
}


def names() -> list[str]:
    """Give the names of all providers this version has."""
    return sorted(_PROVIDERS)


def add(name: str, where: str) -> None:
    """Make a provider of another package known to this process, before its first job.

    Args:
        name: what a target in the catalogue calls it.
        where: `module:class`, imported with the first job for it.
    """
    _PROVIDERS[name] = where


@functools.cache
def load(name: str) -> Provider:
    """Give the process's one instance of a provider.

    Raises:
        ProviderRefused: there is no provider of this name in this version.
    """
    if name not in _PROVIDERS:
        raise ProviderRefused(f"This worker has no provider {name!r}; it has {', '.join(names())}.")
    module, _, attribute = _PROVIDERS[name].partition(":")
    provider: Provider = getattr(importlib.import_module(module), attribute)()
    return provider
