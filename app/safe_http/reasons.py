"""What goes wrong with a host, in sentences for whoever gave its URL; they name no address and no server."""

import contextlib
import ssl
from collections.abc import Iterator
from http.client import HTTPException, RemoteDisconnected
from socket import gaierror
from typing import Final

from urllib3 import exceptions as urllib3

from app.errors import Unreachable

_REASONS: Final[tuple[tuple[tuple[type[Exception], ...], str, bool], ...]] = (
    (
        (gaierror, urllib3.NameResolutionError),
        "The name of the URL's host cannot be looked up at the moment.",
        True,
    ),
    ((urllib3.NewConnectionError,), "The URL's host accepts no connection.", True),
    (
        (TimeoutError, urllib3.TimeoutError),
        "The URL's host does not answer, or not within the time it has.",
        True,
    ),
    ((ssl.SSLCertVerificationError,), "The certificate of the URL's host is not valid for it.", False),
    ((ssl.SSLError, urllib3.SSLError), "The URL's host does not speak TLS as it should.", False),
    ((RemoteDisconnected,), "The URL's host hung up before it answered.", True),
    ((HTTPException, urllib3.InvalidHeader), "The URL's host does not answer in HTTP.", False),
    ((urllib3.HTTPError, OSError), "The URL's host broke off.", True),
)
"""Exceptions, the public sentence for them, and whether the same exchange may succeed later."""


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Raise what sockets, TLS, http.client and urllib3 raise inside as Unreachable."""
    try:
        yield
    except (urllib3.HTTPError, HTTPException, OSError) as error:
        sentence, retryable = next(
            (sentence, retryable) for kinds, sentence, retryable in _REASONS if isinstance(error, kinds)
        )
        raise Unreachable(sentence, retryable=retryable) from error
