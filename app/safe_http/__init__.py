"""The one door to a customer's address: fetch their URL or post to it, without being led into our network.

`Guard` decides and talks; `guarded_pool` is the same guard for the S3 client of a customer's own bucket. What
may be reached beside public hosts is the operator's list for that purpose.
"""

from typing import Final

from app.safe_http.connection import was_not_sent
from app.safe_http.gate import Resolver, ask_system
from app.safe_http.guard import Answer, Checked, Fetched, Guard
from app.safe_http.pool import guarded_pool
from app.settings import Settings

__all__ = [
    "Answer",
    "Checked",
    "Fetched",
    "Guard",
    "Resolver",
    "for_buckets",
    "for_fetch",
    "for_upstreams",
    "for_webhooks",
    "guarded_pool",
    "was_not_sent",
]

UPSTREAM_MAX_BYTES: Final = 64 * 1024 * 1024
"""Most of an image that an upstream names by URL, which was paid for: 16 megapixels of RGBA, unpacked."""


def for_fetch(settings: Settings, *, resolver: Resolver = ask_system) -> Guard:
    """Give the guard for images that customers name by URL; SetupError when its list is malformed."""
    return _guard(settings, "fetch", settings.fetch_allow, resolver)


def for_upstreams(settings: Settings, *, host: str, resolver: Resolver = ask_system) -> Guard:
    """Give the guard for images that an upstream provider names by URL, of at most `UPSTREAM_MAX_BYTES`.

    Args:
        host: the upstream's own `host:port`, which the operator named and which may therefore be internal.

    Raises:
        SetupError: DARKROOM_UPSTREAM_ALLOW is malformed.
    """
    return _guard(
        settings, "upstream", (*settings.upstream_allow, host), resolver, max_bytes=UPSTREAM_MAX_BYTES
    )


def for_webhooks(settings: Settings, *, resolver: Resolver = ask_system) -> Guard:
    """Give the guard for customers' webhooks; SetupError when its list is malformed."""
    return _guard(settings, "webhook", settings.webhook_allow, resolver)


def for_buckets(settings: Settings, *, resolver: Resolver = ask_system) -> Guard:
    """Give the guard for customers' own S3 endpoints; SetupError when its list is malformed."""
    return _guard(settings, "bucket", settings.bucket_allow, resolver)


def _guard(
    settings: Settings,
    purpose: str,
    allow: tuple[str, ...],
    resolver: Resolver,
    *,
    max_bytes: int | None = None,
) -> Guard:
    return Guard(
        purpose=purpose,
        allow=allow,
        timeout=settings.webhook_timeout if purpose == "webhook" else settings.fetch_timeout,
        max_bytes=settings.fetch_max_bytes if max_bytes is None else max_bytes,
        resolver=resolver,
    )
