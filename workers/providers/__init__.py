"""Who draws. A provider's module is imported only by a worker that gets a job for it."""

import functools
import importlib
import threading
from collections.abc import Callable
from typing import Final

from app.db import Database
from app.domain.catalog import Catalog
from app.errors import ProviderRefused
from app.settings import Settings
from workers.providers.base import BatchProvider, Provider

DIFFUSERS: Final = "diffusers"

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
    """Give the process's one instance of a provider that needs no settings.

    Raises:
        ProviderRefused: there is no provider of this name in this version.
    """
    if name not in _PROVIDERS:
        raise ProviderRefused(f"This worker has no provider {name!r}; it has {', '.join(names())}.")
    module, _, attribute = _PROVIDERS[name].partition(":")
    provider: Provider = getattr(importlib.import_module(module), attribute)()
    return provider


class Providers:
    """The providers of a worker process: those of this version, and the catalogue's upstreams.

    Each is made with the first job for it; thread-safe.

    Args:
        on_broken: told why when a device cannot be used any more; the process must end then.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        database: Database,
        *,
        on_broken: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._database = database
        self._on_broken = on_broken
        self._made: dict[str, Provider] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> Provider:
        """Give a provider.

        Raises:
            ProviderRefused: there is none of this name in this version and this catalogue.
            SetupError: it lacks something on this machine; the message names the remedy.
        """
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(name)
            return self._made[name]

    def warm(self, model: str) -> None:
        """Bring a model of the GPU engine into memory, and draw once with it.

        Raises:
            ProviderError: it cannot be loaded, or cannot draw.
            SetupError: the engine cannot run here.
        """
        provider = self(DIFFUSERS)
        assert isinstance(provider, BatchProvider)
        provider.warm(model)

    def warm_models(self) -> list[str]:
        """Give the models that are in memory, as targets name them, the most recently used first."""
        return [
            model
            for provider in tuple(self._made.values())
            if isinstance(provider, BatchProvider)
            for model in provider.warm_models()
        ]

    def _make(self, name: str) -> Provider:
        from workers.providers import opening  # noqa: PLC0415 - most workers need neither

        if (upstream := self._catalog.upstream(name)) is not None:
            return opening.upstream_provider(self._settings, self._catalog, upstream, self._database)
        if name == DIFFUSERS:
            return opening.gpu_engine(self._settings, self._catalog, on_broken=self._on_broken)
        return load(name)
