"""Makes the providers that need settings."""

from typing import Final
from urllib.parse import urlsplit

from app import safe_http
from app.db import Database
from app.domain.catalog import Catalog
from app.domain.upstreams import Upstream
from app.settings import Settings
from workers.providers.base import Provider
from workers.providers.upstream import UpstreamProvider

_PORTS: Final = {"http": 80, "https": 443}


def upstream_provider(
    settings: Settings, catalog: Catalog, upstream: Upstream, database: Database
) -> Provider:
    """Give the provider that draws through an upstream account.

    Raises:
        SetupError: DARKROOM_UPSTREAM_ALLOW, or the host in `base_url`, is malformed.
    """
    address = urlsplit(upstream.base_url)
    name = address.hostname or ""
    host = f"[{name}]" if ":" in name else name
    guard = safe_http.for_upstreams(settings, host=f"{host}:{address.port or _PORTS[address.scheme]}")
    return UpstreamProvider(
        upstream=upstream,
        catalog=catalog,
        key=settings.keys_of_upstreams.get(upstream.name),
        database=database,
        guard=guard,
    )
