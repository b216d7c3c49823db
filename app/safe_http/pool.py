"""A pool of connections for a library of somebody else's that is to talk to a customer's server."""

from datetime import timedelta
from functools import partial
from typing import Any, Final

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout

from app.safe_http.connection import GuardedConnection, GuardedTlsConnection
from app.safe_http.gate import CONNECT_TIMEOUT
from app.safe_http.guard import Guard
from app.safe_http.line import Meter

READ_TIMEOUT: Final = timedelta(seconds=20)
"""How long the other side may be silent."""
EXCHANGE: Final = timedelta(minutes=2)
"""How long a request and its answer may take: 20 MiB at 1.4 Mbit/s."""
MAX_ANSWER: Final = 32 * 1024 * 1024
"""Most bytes of an answer, headers included."""


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = GuardedConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = GuardedTlsConnection


class _GuardedPool(PoolManager):
    """Keeps connections that a guard has checked, and follows no redirect."""

    def __init__(self, guard: Guard, *, exchange: timedelta, max_bytes: int, **options: Any) -> None:
        super().__init__(ssl_context=guard.tls, **options)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        meters = partial(Meter, seconds=exchange.total_seconds(), max_bytes=max_bytes)
        self._guarding = {"gate": guard.gate, "meters": meters}

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        context = self.connection_pool_kw if request_context is None else request_context
        return super()._new_pool(scheme, host, port, {**context, **self._guarding})

    def urlopen(self, method: str, url: str, redirect: bool = False, **options: Any) -> BaseHTTPResponse:  # type: ignore[override]  # noqa: FBT001, FBT002  # as urllib3 has it
        del redirect
        return super().urlopen(method, url, redirect=False, **options)


def guarded_pool(
    guard: Guard,
    *,
    read_timeout: timedelta = READ_TIMEOUT,
    exchange: timedelta = EXCHANGE,
    max_bytes: int = MAX_ANSWER,
    retries: Retry | None = None,
    maxsize: int = 8,
) -> PoolManager:
    """Give a pool whose every new connection is looked up, checked, pinned and compared; thread-safe.

    It raises what urllib3 raises, and beside it ForbiddenAddress, and TooLarge for an answer of more than
    `max_bytes`. A connection that is kept is not looked up again. Redirects are answers like any other.

    Args:
        read_timeout: how long the other side may be silent; a connection gets `CONNECT_TIMEOUT`.
        exchange: how long a request with its answer may take, however it trickles.
        retries: None repeats nothing.
        maxsize: connections kept per host; more threads than that open short-lived ones.
    """
    timeout = Timeout(connect=CONNECT_TIMEOUT.total_seconds(), read=read_timeout.total_seconds())
    return _GuardedPool(
        guard,
        exchange=exchange,
        max_bytes=max_bytes,
        timeout=timeout,
        retries=Retry(0, redirect=False, raise_on_status=False) if retries is None else retries,
        maxsize=maxsize,
    )
