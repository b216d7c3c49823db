"""The S3 store: bytes under a key, through the minio client.

Relies only on put, get with a range, head, list, bulk delete and presigned links, which every S3 has: no
user metadata (rclone forgets it), tags, lifecycle or policies. What is known of an object is in its row.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import quote
from uuid import UUID

from minio import Minio
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import MAX_PART_SIZE, check_bucket_name
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError

from app.errors import (
    DarkroomError,
    ObjectCorrupt,
    ObjectMissing,
    RangeNotSatisfiable,
    SetupError,
    StorageDown,
)
from app.settings import Settings

CHUNK_BYTES: Final = 64 * 1024
"""Size of the pieces in which bytes are sent and received."""
CONNECT_TIMEOUT: Final = timedelta(seconds=3)
READ_TIMEOUT: Final = timedelta(seconds=20)
"""How long the store may be silent."""
POOL_SIZE: Final = 32
"""Connections kept open; more threads than that open short-lived ones."""
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion"})
_TEMPORARY: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})
_DAMAGED: Final = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"})
_REMEDY: Final = (
    "check DARKROOM_S3_ENDPOINT, DARKROOM_S3_ACCESS_KEY, DARKROOM_S3_SECRET_KEY and DARKROOM_S3_REGION,"
    " this machine's clock, and that the key may read, write, list and delete in DARKROOM_S3_BUCKET."
)


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What the store itself knows of an object: size in bytes, and when it was written, by its own clock."""

    key: str
    size: int
    last_modified: datetime


def output_key(
    account_id: UUID, day: date, *, job_id: UUID, attempt: int, index: int, sha256: str, extension: str
) -> str:
    """Give `outputs/<account>/<yyyy>/<mm>/<dd>/<job>/<attempt>/<index>-<16 of sha256>.<extension>`.

    The attempt and the hash are in it so that a worker presumed dead can only write a key that no row names.
    `day` is the day the job was created on, so that all its attempts lie side by side.
    """
    return f"outputs/{account_id}/{day:%Y/%m/%d}/{job_id}/{attempt}/{index}-{sha256[:16]}.{extension}"


def input_key(account_id: UUID, day: date, *, upload_id: UUID, role: str, sha256: str, extension: str) -> str:
    """Give `inputs/<account>/<yyyy>/<mm>/<dd>/<upload>/<role>-<16 of sha256>.<extension>`.

    `upload_id` is fresh for each request, so that purging one job's input never takes another's.
    """
    return f"inputs/{account_id}/{day:%Y/%m/%d}/{upload_id}/{role}-{sha256[:16]}.{extension}"


class ObjectStream:
    """The bytes of an object or of a range of it, in pieces of at most 64 KiB; iterate once.

    It holds a connection until it is read to the end or closed, which may happen at any time, and twice.
    Iterating raises StorageDown when the store breaks off.
    """

    def __init__(self, response: BaseHTTPResponse, store: "Storage") -> None:
        self._response, self._store = response, store
        with store.translated():
            self.length = int(response.headers.get("Content-Length", "missing"))
            """Number of bytes that will come: fewer than asked for when the object ends earlier."""

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self._store.translated():
                yield from self._response.stream(CHUNK_BYTES, decode_content=False)
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back when all was read, else close it."""
        self._response.close()
        self._response.release_conn()


class Storage:
    """One bucket of an S3 store. Threads may share it; a forked process opens its own.

    Every method may raise StorageDown (the store is away or overloaded, or the bucket gone; the same call may
    work later), SetupError (it refuses our key, or a request as such) and, for a key that no store takes,
    DarkroomError. What did not time out is tried up to three times; all of it is idempotent.
    """

    def __init__(self, client: Minio, bucket: str, *, endpoint: str, public: Minio | None = None) -> None:
        self._client, self._public = client, public
        self._bucket, self._endpoint = bucket, endpoint

    def ensure_bucket(self) -> None:
        """Create the bucket unless it exists; several processes may do so at once."""
        with self.translated():
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except (S3Error, InvalidResponseError):
                # Somebody may have been faster; stores word that differently, so look.
                if not self._client.bucket_exists(self._bucket):
                    raise

    def check(self) -> None:
        """Return if the store is up, knows us and has the bucket."""
        with self.translated():
            if not self._client.bucket_exists(self._bucket):
                raise self._no_bucket()

    def put(self, key: str, data: bytes, *, media_type: str) -> None:
        """Store the bytes in one request; returns once the store is seen to hold them. Idempotent.

        Raises:
            ObjectCorrupt: the store holds other bytes; they were deleted if that was possible.
        """
        _check(key)
        with self.translated(key):
            written = self._client.put_object(
                self._bucket,
                key,
                io.BytesIO(data),
                len(data),
                content_type=media_type,
                part_size=MAX_PART_SIZE,  # minio splits at 5 MB, and several parts have nobody's MD5 as ETag
            )
        if not self._holds(key, data, etag=written.etag):
            with contextlib.suppress(DarkroomError):
                self.delete([key])
            raise ObjectCorrupt(f"The object store did not keep the {len(data)} bytes of {key} as sent.")

    def _holds(self, key: str, data: bytes, *, etag: str | None) -> bool:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        try:
            # In an encrypted bucket the ETag is not the MD5: there only the bytes can tell.
            return (etag == md5 and self.stat(key).size == len(data)) or self.get(key) == data
        except ObjectMissing:
            return False

    def get(self, key: str) -> bytes:
        """Give the object's bytes; ObjectMissing when there is no such object."""
        return b"".join(self.open_range(key))

    def get_verified(self, key: str, *, sha256: str) -> bytes:
        """Give the object's bytes if this is their SHA-256, in lower-case hexadecimal.

        Raises:
            ObjectMissing: there is no such object.
            ObjectCorrupt: its bytes are others.
        """
        data = self.get(key)
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise ObjectCorrupt(f"{key} has SHA-256 {found} in the object store, not {sha256}.")
        return data

    def open_range(self, key: str, *, offset: int = 0, length: int | None = None) -> ObjectStream:
        """Open the object from byte `offset` on, for at most `length` bytes, or to the end. Close the stream.

        The store has answered when this returns, so a view can still choose its status.

        Raises:
            ObjectMissing: there is no such object.
            RangeNotSatisfiable: it ends at or before `offset`.
            ValueError: `offset` is below 0 or `length` below 1.
        """
        if offset < 0 or (length is not None and length < 1):
            raise ValueError(f"no range starts at {offset} and is {length} bytes long")
        _check(key)
        with self.translated(key):
            response = self._client.get_object(self._bucket, key, offset=offset, length=length or 0)
        stream = ObjectStream(response, self)
        # rclone answers ranges with 200 instead of 206; what counts is where the bytes start.
        if not response.headers.get("Content-Range", "bytes 0-").startswith(f"bytes {offset}-"):
            stream.close()
            raise SetupError(f"The object store at {self._endpoint} ignores Range, which Darkroom needs.")
        return stream

    def stat(self, key: str) -> StoredObject:
        """Give what the store knows of the object; ObjectMissing when there is no such object."""
        _check(key)
        with self.translated(key):
            try:
                return _stored(self._client.stat_object(self._bucket, key))
            except S3Error as error:
                # An answer to HEAD has no body, so a 404 may also mean that the bucket is gone.
                if error.code in _MISSING and not self._client.bucket_exists(self._bucket):
                    raise self._no_bucket() from error
                raise

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        try:
            self.stat(key)
        except ObjectMissing:
            return False
        return True

    def delete(self, keys: Iterable[str]) -> dict[str, str]:
        """Delete objects, 1000 per request; give the keys of those still there, each with the reason.

        A missing object is a deleted one. When this raises, some may be deleted: call it again.
        """
        problems = {key: _problem_with(key) for key in keys}
        left = {key: problem for key, problem in problems.items() if problem}
        legal = (DeleteObject(key) for key in problems if key not in left)
        with self.translated():
            for error in self._client.remove_objects(self._bucket, legal):
                reason = f"{error.code}: {error.message or 'no message'}"
                if not error.name:
                    raise StorageDown(f"The object store refused a bulk delete, {reason}.")
                if error.code not in _MISSING:
                    left[error.name] = reason
        return left

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[StoredObject]:
        """Give the objects whose key starts with this text, in the order of keys, after key `start_after`."""
        found = self._client.list_objects(self._bucket, prefix, recursive=True, start_after=start_after)
        with self.translated():
            yield from map(_stored, found)

    def presigned_get(self, key: str, *, expires: timedelta, filename: str, media_type: str) -> str:
        """Give a link for anybody to the object, at the store's public endpoint, without asking the store.

        It works for `expires`, in whole seconds and between one second and seven days, and serves the object
        as this media type; browsers save it as `filename`. SetupError without a public endpoint.
        """
        _check(key)
        if self._public is None:
            raise SetupError("Set DARKROOM_S3_PUBLIC_ENDPOINT to hand out links to the object store.")
        plain = re.sub(r'[^ -~]|["\\%]', "_", filename)
        shown = f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
        return self._public.presigned_get_object(
            self._bucket,
            key,
            expires=min(max(expires, timedelta(seconds=1)), timedelta(days=7)),  # what S3 allows
            response_headers={"response-content-type": media_type, "response-content-disposition": shown},
        )

    @contextlib.contextmanager
    def translated(self, key: str | None = None) -> Iterator[None]:
        """Raise what minio and urllib3 raise inside as one of our errors."""
        try:
            yield
        except MinioException as error:
            raise self._refusal(error, key) from error
        except (HTTPError, OSError) as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            raise StorageDown(
                f"The object store at {self._endpoint} does not answer ({type(reason).__name__}: {reason})."
            ) from error
        except (ValueError, SyntaxError) as error:  # SyntaxError is what the XML parser's ParseError is
            raise StorageDown(f"The answer of {self._endpoint} is not S3 ({error}).") from error

    def _refusal(self, error: MinioException, key: str | None) -> DarkroomError:
        status, code, message = _answer(error)
        said = f"The object store at {self._endpoint} said {status} {code}: {message}"
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in _MISSING:
            return ObjectMissing(f"The object store holds no {key}.")
        if code in _DAMAGED:
            return ObjectCorrupt(f"{said}; {key} was damaged on its way.")
        if code == "InvalidRange":
            return RangeNotSatisfiable()
        return StorageDown(said) if status in _TEMPORARY else SetupError(f"{said}; {_REMEDY}")

    def _no_bucket(self) -> StorageDown:
        return StorageDown(
            f"The object store at {self._endpoint} has no bucket {self._bucket!r};"
            " create it, or set DARKROOM_S3_BUCKET to the one that holds your images."
        )


def open_store(
    settings: Settings,
    *,
    connect_timeout: timedelta = CONNECT_TIMEOUT,
    read_timeout: timedelta = READ_TIMEOUT,
) -> Storage:
    """Give the store that the settings name, without touching the network.

    Raises:
        SetupError: an endpoint or the bucket's name is malformed.
    """
    timeout = Timeout(connect=connect_timeout.total_seconds(), read=read_timeout.total_seconds())
    pool = _Pool(maxsize=POOL_SIZE, timeout=timeout, retries=_RETRIES, blocksize=CHUNK_BYTES)
    try:
        check_bucket_name(settings.s3_bucket, strict=True)
        client = _client(settings, settings.s3_endpoint, pool)
        public = _client(settings, settings.s3_public_endpoint, pool) if settings.s3_public_endpoint else None
    except ValueError as error:
        raise SetupError(f"DARKROOM_S3_ENDPOINT, _PUBLIC_ENDPOINT or _BUCKET: {error}.") from error
    return Storage(client, settings.s3_bucket, endpoint=settings.s3_endpoint, public=public)


def _client(settings: Settings, endpoint: str, pool: PoolManager) -> Minio:
    scheme, _, host = endpoint.rstrip("/").partition("://")
    if scheme not in ("http", "https"):
        raise ValueError(f"{endpoint!r} is not like http://host:port")
    return Minio(
        host,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=scheme == "https",
        region=settings.s3_region,  # given, or the client asks the store before it signs
        http_client=pool,
    )


class _Retries(Retry):
    """Repeats nothing that timed out: the caller has waited long enough, and the store has enough to do."""

    def increment(self, *args: Any, **kwargs: Any) -> Self:
        error = kwargs.get("error")
        # While it sends, a timeout is one argument of a ProtocolError.
        if error and any(isinstance(it, (ReadTimeoutError, TimeoutError)) for it in (error, *error.args)):
            raise error
        return super().increment(*args, **kwargs)


_RETRIES: Final = _Retries(
    total=2,
    connect=1,
    read=1,
    redirect=False,
    status_forcelist=(500, 502, 503, 504),
    allowed_methods=None,  # a bulk delete, our only POST, may be repeated like the rest
    backoff_factor=0.1,
    raise_on_status=False,  # minio shall see the store's last answer
    respect_retry_after_header=False,  # up to hours; whoever called knows better how long to wait
)


class _Pool(PoolManager):
    """Sends a body piece by piece.

    urllib3 sends bytes in one go, which a new connection's connect timeout limits as a whole: on a line of
    10 Mbit/s no object above 4 MB would ever arrive. So each piece gets that time.
    """

    def urlopen(self, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
        if kwargs.get("body"):
            kwargs["body"] = io.BytesIO(kwargs["body"])
        return super().urlopen(*args, **kwargs)


def _answer(error: MinioException) -> tuple[int, str, str]:
    """Give HTTP status, S3 code and message of what the store answered."""
    if isinstance(error, S3Error):
        return error.response.status, error.code or "", error.message or ""
    if isinstance(error, ServerError):
        return error.status_code, "", str(error)
    # rclone says text/xml, and minio reads application/xml only; its exception keeps the answer as text.
    text = str(error)
    status, code = re.search(r"Response code: (\d+)", text), re.search(r"<Code>(\w+)</Code>", text)
    return int(status[1]) if status else 0, code[1] if code else "", text


def _stored(found: Object) -> StoredObject:
    return StoredObject(
        key=found.object_name or "",
        size=found.size or 0,
        last_modified=found.last_modified or datetime.min.replace(tzinfo=UTC),
    )


def _check(key: str) -> None:
    if problem := _problem_with(key):
        raise DarkroomError(f"{key!r} cannot be the key of an object: {problem}.")


def _problem_with(key: str) -> str | None:
    if not key.isprintable() or not {"", ".", ".."}.isdisjoint(key.split("/")):
        return "it has an unprintable character, or a part that is empty, '.' or '..'"
    return "it is longer than 1024 bytes" if len(key.encode()) > 1024 else None  # noqa: PLR2004  # S3's limit
