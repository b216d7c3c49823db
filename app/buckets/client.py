"""One customer's bucket: put, read back and delete objects, each within a time.

The server is a stranger. What it answers is read up to a limit, the time counts for a call with all its
requests, and every failure is a BucketDown or BucketRefused whose sentence the customer may read.
"""

import contextlib
import hashlib
import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Self

from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import MAX_PART_SIZE
from urllib3 import BaseHTTPResponse, HTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from app.buckets.details import Place
from app.errors import BucketDown, BucketError, BucketRefused, ForbiddenAddress, TooLarge

CONNECT_TIMEOUT: Final = timedelta(seconds=5)
READ_TIMEOUT: Final = timedelta(seconds=10)
"""How long the bucket may be silent."""
EXCHANGE: Final = timedelta(seconds=30)
"""How long a request may take of a server that never falls silent and never ends; set it for the pool."""
_LONGEST_ANSWER: Final = 64 * 1024
"""Bytes of an answer besides an object we wrote; S3's errors have under one KiB."""
_ACL_REFUSALS: Final = frozenset(
    {"AccessControlListNotSupported", "NotImplemented", "InvalidArgument", "InvalidRequest", "AccessDenied"}
)
"""What stores say to a public ACL: AWS where ACLs are off or public ones blocked, R2, GCS with one access."""
_WRONG_KEYS: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "AuthenticationFailed", "InvalidSecurity"}
    | {"AllAccessDisabled", "AccountProblem", "NotSignedUp", "Unauthorized", "InvalidToken"}
)
_WRONG_REGION: Final = frozenset(
    {"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "Redirect", "InvalidRegion"}
    | {"IllegalLocationConstraintException", "AuthorizationQueryParametersError"}
)
_TEMPORARY: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})
_OUR_CLOCK: Final = "RequestTimeTooSkewed"
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion"})


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Access key and secret key of a bucket."""

    access: str = field(repr=False)
    secret: str = field(repr=False)


class CustomerBucket:
    """A bucket of a customer's, and a directory in it. Threads may share it.

    Every method may raise BucketDown (it does not answer, or not in time; the same call may work later) and
    BucketRefused (its details need a change; `member` says which).

    `within` is kept to of a server that is slow or silent. One that lets its answer drip can stretch it by
    the pool's `EXCHANGE`.

    Args:
        pool: connects only where it may; see `app.safe_http.guarded_pool`.
    """

    def __init__(self, place: Place, *, region: str, directory: str, keys: Keys, pool: PoolManager) -> None:
        self._place, self._region, self._directory, self._keys = place, region, directory, keys
        self._pool = pool
        self._takes_acl = True

    def __repr__(self) -> str:
        return f"CustomerBucket({self._place.url})"

    def put(self, file_name: str, data: bytes, *, media_type: str, within: timedelta) -> None:
        """Store the bytes for everybody to read; returns once the bucket is seen to hold them. Idempotent.

        They are sent with a public-read ACL. Where the store takes none it is left out, and whether the
        object is public is up to the bucket's own rules.
        """
        with self._client(within, longest=len(data)) as client:
            etag = self._send(client, file_name, data, media_type=media_type)
            if not self._holds(client, file_name, data, etag=etag):
                raise BucketDown("The bucket did not keep an object as it was sent.")

    def get(self, file_name: str, *, longest: int, within: timedelta) -> bytes:
        """Give an object's first bytes, at most `longest`."""
        with self._client(within, longest=longest) as client:
            return self._read(client, file_name, longest)

    def delete(self, file_name: str, *, within: timedelta) -> None:
        """Delete an object; a missing one is a deleted one."""
        with self._client(within, longest=0) as client:
            client.remove_object(self._place.bucket, self._key(file_name))

    def _key(self, file_name: str) -> str:
        return f"{self._directory}/{file_name}" if self._directory else file_name

    def _send(self, client: Minio, file_name: str, data: bytes, *, media_type: str) -> str | None:
        if self._takes_acl:
            try:
                return self._send_once(client, file_name, data, media_type=media_type, acl=True)
            except (S3Error, InvalidResponseError) as error:
                if _answer(error)[1] not in _ACL_REFUSALS:
                    raise
            etag = self._send_once(client, file_name, data, media_type=media_type, acl=False)
            self._takes_acl = False
            return etag
        return self._send_once(client, file_name, data, media_type=media_type, acl=False)

    def _send_once(
        self, client: Minio, file_name: str, data: bytes, *, media_type: str, acl: bool
    ) -> str | None:
        written = client.put_object(
            self._place.bucket,
            self._key(file_name),
            io.BytesIO(data),
            len(data),
            content_type=media_type,
            metadata={"x-amz-acl": "public-read"} if acl else None,
            part_size=MAX_PART_SIZE,  # minio splits at 5 MB, and several parts have nobody's MD5 as ETag
        )
        return written.etag

    def _holds(self, client: Minio, file_name: str, data: bytes, *, etag: str | None) -> bool:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        try:
            found = client.stat_object(self._place.bucket, self._key(file_name))
            # In an encrypted bucket the ETag is not the MD5: there only the bytes can tell.
            return found.size == len(data) and (
                etag == md5 or self._read(client, file_name, len(data)) == data
            )
        except S3Error as error:
            if error.code in _MISSING:
                return False
            raise

    def _read(self, client: Minio, file_name: str, longest: int) -> bytes:
        response = client.get_object(self._place.bucket, self._key(file_name))
        try:
            return response.read(longest, decode_content=False)
        finally:
            response.close()
            response.release_conn()

    @contextlib.contextmanager
    def _client(self, within: timedelta, *, longest: int) -> Iterator[Minio]:
        """Give a client whose requests together end within the time, and raise what goes wrong as ours."""
        http = _Bounded(self._pool, _Deadline(within), longest=max(longest, _LONGEST_ANSWER))
        with _translated():
            try:
                client = self._connect(http)
            except ValueError:
                raise BucketRefused("The endpoint is no address of an S3 server.") from None
            yield client

    def _connect(self, http: PoolManager) -> Minio:
        scheme, host = self._place.server.split("://")
        client = Minio(
            host,
            access_key=self._keys.access,
            secret_key=self._keys.secret,
            secure=scheme == "https",
            region=self._region,
            http_client=http,
        )
        if self._place.in_host:
            client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]  # minio has no types here
        return client


class _Deadline:
    def __init__(self, within: timedelta) -> None:
        self._end = time.monotonic() + within.total_seconds()

    def left(self) -> float:
        """Seconds; raises TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this call is over")
        return left


class _Body(io.BytesIO):
    """What is sent, piece by piece, for as long as there is time."""

    def until(self, deadline: _Deadline) -> Self:
        self._deadline = deadline
        return self

    def read(self, size: int | None = -1, /) -> bytes:
        self._deadline.left()
        return super().read(size)


class _Bounded(PoolManager):
    """The pool for one call: its requests end in time, follow no redirect, and read no endless answer."""

    def __init__(self, pool: PoolManager, deadline: _Deadline, *, longest: int) -> None:
        super().__init__(num_pools=1)
        self._pool, self._deadline, self._longest = pool, deadline, longest

    def urlopen(self, method: str, url: str, **options: Any) -> BaseHTTPResponse:  # type: ignore[override]  # the first two are all that minio gives by position
        left = self._deadline.left()
        preload = options.pop("preload_content", True)
        if options.get("body"):
            options["body"] = _Body(options["body"]).until(self._deadline)
        timeout = Timeout(
            connect=min(CONNECT_TIMEOUT.total_seconds(), left), read=min(READ_TIMEOUT.total_seconds(), left)
        )
        response = self._pool.urlopen(
            method, url, redirect=False, retries=False, timeout=timeout, preload_content=False, **options
        )
        is_object = not preload and response.status in {200, 206}
        return response if is_object else self._read(response, method, url)

    def _read(self, response: BaseHTTPResponse, method: str, url: str) -> BaseHTTPResponse:
        """The same answer, read to its end; one that is too long is no answer of S3."""
        body = response.read(self._longest + 1, decode_content=False)
        if len(body) > self._longest:
            response.close()
            raise ValueError("the answer is too long")
        response.release_conn()
        return HTTPResponse(
            body=io.BytesIO(body),
            headers=response.headers,
            status=response.status,
            preload_content=True,
            decode_content=False,
            enforce_content_length=False,
            request_method=method,
            request_url=url,
        )

    def clear(self) -> None:
        """Leave the shared pool as it is: minio clears its client's when it is thrown away."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise what minio, urllib3 and the guard raise inside as a BucketError that quotes none of them."""
    try:
        yield
    except MinioException as error:
        raise _refusal(error) from None
    except ForbiddenAddress as error:
        kind = BucketDown if error.retryable else BucketRefused
        raise kind(error.message) from None
    except (HTTPError, OSError):
        raise BucketDown("The endpoint does not answer, or not in time.") from None
    except (TooLarge, ValueError, SyntaxError, LookupError, TypeError, AttributeError):
        # SyntaxError is what the XML parser's ParseError is; the last three are how minio takes it that
        # something is missing which S3 promises.
        raise BucketDown("The endpoint does not answer as an S3 server does.") from None


def _refusal(error: MinioException) -> BucketError:
    status, code = _answer(error)
    if (status in _TEMPORARY or code == _OUR_CLOCK) and code not in _WRONG_REGION:
        return BucketDown(f"The bucket answered {status}{_named(code)}; it may work later.")
    if code == "NoSuchBucket":
        return BucketRefused("There is no such bucket at the endpoint.", member="bucket")
    if code in _WRONG_REGION:
        return BucketRefused(f"The bucket is in another region{_named(code)}.", member="region_name")
    if code in _WRONG_KEYS or status in {401, 403}:
        return BucketRefused(
            f"The store does not let this access key with this secret do what is needed{_named(code)}: "
            "it must put, get and list objects and set their ACL.",
            member="aws_access_key_id",
        )
    return BucketRefused(f"The endpoint answered {status}{_named(code)}.")


def _named(code: str) -> str:
    return f" ({code})" if code else ""


def _answer(error: MinioException) -> tuple[int, str]:
    """Give the HTTP status and S3's code; of what the server says nothing else is passed on."""
    if isinstance(error, S3Error):
        status, code = error.response.status, error.code or ""
    elif isinstance(error, ServerError):
        status, code = error.status_code, ""
    else:
        # rclone says text/xml, and minio reads application/xml only; its exception keeps the answer as text.
        text = str(error)
        found, named = re.search(r"Response code: (\d+)", text), re.search(r"<Code>(\w+)</Code>", text)
        status, code = int(found[1]) if found else 0, named[1] if named else ""
    return status, code if re.fullmatch(r"\w{1,64}", code, re.ASCII) else ""
