"""Makes the providers that need settings."""

from urllib.parse import urlsplit

from app import safe_http
from app.db import Database
from app.domain.catalog import Catalog
from app.domain.upstreams import Upstream as Account
from app.settings import Settings
from workers.providers.base import Provider

_PORTS = {"http": 80, "https": 443}


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
    )
