"""Makes the providers that need settings: the GPU engine, and upstream accounts."""

from collections.abc import Callable
from urllib.parse import urlsplit

from app import safe_http
from app.db import Database
from app.domain.catalog import Catalog
from app.domain.upstreams import Upstream as Account
from app.errors import SetupError
from app.settings import Settings
from app.storage import open_store
from workers.providers.base import Provider

_PORTS = {"http": 80, "https": 443}


def diffusers(settings: Settings, catalog: Catalog, *, on_broken: Callable[[str], None]) -> Provider:
    """Give the engine that draws on this machine's GPU.

    Raises:
        SetupError: PyTorch or diffusers are not installed.
    """
    try:
        from workers.providers.diffusers import Diffusers  # noqa: PLC0415 - torch takes seconds to import
    except ImportError as error:
        raise SetupError(f"The GPU engine is not installed ({error}); run: make gpu") from error
    return Diffusers(
        profiles=catalog.profile,
        folder=settings.models_folder,
        device=settings.gpu_device,
        reserve=settings.gpu_reserve_bytes,
        budget=settings.gpu_model_bytes,
        on_broken=on_broken,
    )


def upstream(settings: Settings, catalog: Catalog, account: Account, database: Database) -> Provider:
    """Give the provider that draws through an account upstream.

    Raises:
        SetupError: DARKROOM_UPSTREAM_ALLOW is malformed.
    """
    from workers.providers.upstream import Upstream  # noqa: PLC0415 - most workers call none

    address = urlsplit(account.base_url)
    host = f"{address.hostname}:{address.port or _PORTS[address.scheme]}"
    return Upstream(
        upstream=account,
        catalog=catalog,
        key=settings.keys_of_upstreams.get(account.name),
        database=database,
        guard=safe_http.for_upstreams(settings, host=host),
        storage=open_store(settings),
        settings=settings,
    )
