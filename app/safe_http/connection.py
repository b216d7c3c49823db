"""urllib3's connections, led through the gate: every new one looks up, checks, pins and compares.

The name stays what it was for everything but the address: in the Host header, in TLS's server name, and in
the check of the certificate.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from certifi import where
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from app.safe_http.gate import CONNECT_TIMEOUT, Gate
from app.safe_http.line import Line, Meter, TlsLine, dial

_MOST_TRIED: Final = 3
"""Addresses of one host that are connected to in turn."""
_UNSENT: Final = "No request was written: the connection, or its TLS, did not come about."


class GuardedConnection(HTTPConnection):
    """One connection over http.

    Args:
        meters: gives the meter for connecting, and the one for each request.

    Connecting raises ForbiddenAddress, and urllib3's own errors.
    """

    def __init__(
        self, host: str, port: int | None = None, *, gate: Gate, meters: Callable[[], Meter], **options: Any
    ) -> None:
        super().__init__(host, port, **options)
        self._gate, self._meters = gate, meters
        self._meter = meters()

    def connect(self) -> None:
        """Connect to a checked address, and put the connection onto a fresh meter."""
        self._meter = self._meters()
        try:
            super().connect()
        except Exception as error:
            error.add_note(_UNSENT)
            raise
        self._measure()

    def open(self) -> Line:
        """Connect, for one request whose time the meter alone limits, and give the connection's socket."""
        self.connect()
        self.timeout = None
        assert isinstance(self.sock, Line)
        return self.sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; a connection that is used again gets a fresh meter."""
        if self.sock is not None:
            self._meter = self._meters()
            self._measure()
        super().request(*args, **kwargs)

    def _measure(self) -> None:
        assert isinstance(self.sock, Line)
        self.sock.meter = self._meter

    def _new_conn(self) -> socket.socket:
        longest = CONNECT_TIMEOUT.total_seconds()
        patience = longest if self.timeout is None else min(self.timeout, longest)
        failure: HTTPError | None = None
        try:
            found = self._gate.addresses(
                self.host, self.port, seconds=self._meter.seconds_left(at_most=patience)
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"The look-up of {self.host} took too long") from error
        for address in found[:_MOST_TRIED]:
            try:
                return dial(address, self.port, meter=self._meter, patience=patience)
            except TimeoutError:
                failure = ConnectTimeoutError(self, f"{address} does not answer")
            except OSError as error:
                failure = NewConnectionError(self, f"{address}: {error}")
        assert failure is not None  # a gate gives at least one address
        raise failure


def was_not_sent(error: BaseException) -> bool:
    """Whether this error, or one that it holds, ended a guarded connection before a request was written.

    An error of TLS is no sign of it by itself: the other side may send an alert, or a record that is broken,
    where its answer should be.
    """
    # Not `__context__`: that may be an earlier exchange's error, which somebody was dealing with.
    held = (*error.args, getattr(error, "reason", None), error.__cause__)
    return _UNSENT in getattr(error, "__notes__", ()) or any(
        was_not_sent(one) for one in held if isinstance(one, BaseException)
    )


class GuardedTlsConnection(GuardedConnection, HTTPSConnection):
    """One connection over https; `ssl_context` must be one of `trust`."""


def trust(ca_file: str | None = None) -> ssl.SSLContext:
    """Give a context that checks certificates and names, for TLS 1.2 and newer; threads may share it.

    It trusts the authorities of this machine, where a company puts its own (or SSL_CERT_FILE names them),
    those of Mozilla, because a small container image has none, and those in `ca_file`, PEM.
    """
    context = ssl.create_default_context()
    for file in (where(), ca_file):
        if file is not None:
            context.load_verify_locations(file)
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TlsLine
    return context
