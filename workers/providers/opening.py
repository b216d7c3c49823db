"""Makes the providers that need settings."""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from app import safe_http
from app.db import Database
from app.domain.catalog import Catalog
from app.domain.upstreams import Upstream
from app.errors import DeviceBroken, ProviderDown, SetupError
from app.settings import Settings
from workers.providers.base import Provider
from workers.providers.upstream import UpstreamProvider

_PORTS: Final = {"http": 80, "https": 443}


def upstream_provider(
    settings: Settings, catalog: Catalog, upstream: Upstream, database: Database
) -> Provider:
    """Give the provider that draws through an upstream account.

    Raises:
        ProviderDown: DARKROOM_UPSTREAM_ALLOW, or the host in `base_url`, is malformed: the operator must mend
            that, and meanwhile another target of a job's model may draw it.
    """
    address = urlsplit(upstream.base_url)
    name = address.hostname or ""
    host = f"[{name}]" if ":" in name else name
    try:
        guard = safe_http.for_upstreams(settings, host=f"{host}:{address.port or _PORTS[address.scheme]}")
    except SetupError as error:
        raise ProviderDown(f"Upstream {upstream.name} cannot be reached: {error.message}") from error
    return UpstreamProvider(
        upstream=upstream,
        catalog=catalog,
        key=settings.keys_of_upstreams.get(upstream.name),
        database=database,
        guard=guard,
    )


def gpu_engine(settings: Settings, catalog: Catalog, *, on_broken: Callable[[str], None]) -> Provider:
    """Give the engine that draws the catalogue's profiles on this process's device.

    Raises:
        DeviceBroken: it cannot run here, as a library or the device is missing or does not answer. This
            process is told to end: another one may be able to, and no job is charged for it.
    """
    try:
        return _engine(settings, catalog, on_broken)
    except (ImportError, OSError, RuntimeError, SetupError) as error:
        why = f"the GPU engine cannot run here: {error}"
        on_broken(why)
        broken = DeviceBroken(why)
        broken.charged = False
        raise broken from error


def _engine(settings: Settings, catalog: Catalog, on_broken: Callable[[str], None]) -> Provider:
    quiet_libraries()
    from workers.providers import diffusers  # noqa: PLC0415 - it imports torch, which takes seconds

    return diffusers.Diffusers(
        profiles={profile.name: profile for profile in catalog.profiles},
        folder=settings.models_folder,
        device=diffusers.Device(
            settings.gpu_device, reserve=settings.gpu_reserve_bytes, budget=settings.gpu_model_bytes
        ),
        on_broken=on_broken,
    )


def quiet_libraries() -> None:
    """Keep their progress bars and advice out of a worker's log; they talk as soon as they are imported."""
    from diffusers.utils import logging as of_diffusers  # noqa: PLC0415 - an extra
    from transformers.utils import logging as of_transformers  # noqa: PLC0415 - an extra

    for library in (of_diffusers, of_transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()
