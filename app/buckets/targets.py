"""The buckets of all accounts: set and tried, reset, and opened for whoever writes to one."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import orjson
from uuid_utils.compat import uuid7

from app import safe_http
from app.buckets.client import EXCHANGE, CustomerBucket, Keys
from app.buckets.details import DeployType, Details, Place, place_of
from app.db import Database
from app.db import buckets as rows
from app.db.buckets import TargetRow
from app.domain.copies import COPY_LEASE
from app.errors import BucketError, BucketRefused, FieldProblem, InvalidFields, RateLimited, SetupError
from app.log import get_logger
from app.settings import Settings
from app.vault import Vault

PROBE_WITHIN: Final = timedelta(seconds=20)
"""Longest that trying a bucket's details takes."""
_PROBE: Final = b"Darkroom wrote this to see whether it may. It can be deleted.\n"
_PROBES_AT_ONCE: Final = 8
"""In one process; each holds a thread for as long as a stranger's server likes, up to `PROBE_WITHIN`."""
_OPENED: Final = 256
"""Buckets kept ready to be written to."""

log = get_logger(__name__)


class Buckets:
    """All customers' buckets, as one process sees them; thread-safe, opens nothing until it is used."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._vault = Vault(settings)
        self._pool = safe_http.guarded_pool(safe_http.for_buckets(settings), exchange=EXCHANGE)
        self._lock = threading.Lock()
        self._opened: OrderedDict[UUID, tuple[CustomerBucket, TargetRow]] = OrderedDict()
        self._trying: set[UUID] = set()

    def set_bucket(self, account_id: UUID, details: Details) -> TargetRow:
        """Try the details, and have the account's new jobs use them; what was set before is replaced.

        A small object is written under the directory, read back and deleted; where the key may not delete,
        it stays behind. The keys are kept encrypted.

        Raises:
            InvalidFields: the bucket cannot be told, or does not take the object; names the member that is
                most likely wrong. Nothing was changed.
            RateLimited: another try of this account, or too many of others, are under way.
        """
        place = place_of(details)
        keys = Keys(
            access=details.aws_access_key_id.get_secret_value(),
            secret=details.aws_secret_access_key.get_secret_value(),
        )
        bucket = CustomerBucket(
            place,
            region=details.region_name,
            directory=details.image_directory,
            keys=keys,
            pool=self._pool,
        )
        with self._one_at_a_time(account_id):
            try:
                try_out(bucket)
            except BucketError as error:
                log.info("bucket_refused", account_id=str(account_id), error=error.code, member=error.member)
                raise InvalidFields(_complaint(error, details)) from None
        row = TargetRow(
            id=uuid7(),
            account_id=account_id,
            deploy_type=details.deploy_type.value,
            endpoint_url=place.url,
            region=details.region_name,
            bucket=place.bucket,
            directory=details.image_directory,
            public_url=details.public_url,
            credentials=self._vault.encrypt(orjson.dumps([keys.access, keys.secret]).decode()),
        )
        with self._database.transaction() as tx:
            rows.replace(tx, row)
            rows.hurry(tx, row, wait=COPY_LEASE)
        log.info("bucket_set", account_id=str(account_id), target_id=str(row.id))
        return row

    def reset_bucket(self, account_id: UUID, deploy_type: DeployType) -> bool:
        """Have new jobs go to our own store alone; False when nothing was set.

        Jobs that were submitted before still go to the bucket they were promised.
        """
        with self._database.transaction() as tx:
            return rows.remove(tx, account_id, deploy_type=deploy_type.value)

    def current(self, account_id: UUID, deploy_type: DeployType = DeployType.REALTIME) -> TargetRow | None:
        """Give the bucket for an account's new jobs; None when they go to our own store alone."""
        with self._database.autocommit() as tx:
            return rows.current(tx, account_id, deploy_type=deploy_type.value)

    def open(self, target_id: UUID) -> tuple[CustomerBucket, TargetRow]:
        """Give the bucket that a job was promised, removed or not, and what is known of it.

        Where the customer has sent details for the same links since, it is the bucket of those.

        Raises:
            BucketRefused: its keys are deleted, as nothing seemed to need them, or cannot be decrypted.
            DatabaseDown: it had to be looked up.
        """
        with self._lock:
            if target_id in self._opened:
                self._opened.move_to_end(target_id)
                return self._opened[target_id]
        with self._database.autocommit() as tx:
            row = rows.for_copies(tx, target_id)
        if row is None or row.credentials is None:
            raise BucketRefused("The bucket's details were reset, and its keys are deleted.")
        opened = self._open(row)
        with self._lock:
            self._opened[target_id] = opened
            if len(self._opened) > _OPENED:
                self._opened.popitem(last=False)
        return opened

    def close(self, target_id: UUID) -> None:
        """Have the details looked up again at the next `open`: with these it did not work."""
        with self._lock:
            self._opened.pop(target_id, None)

    def _open(self, row: TargetRow) -> tuple[CustomerBucket, TargetRow]:
        assert row.credentials is not None
        try:
            access, secret = orjson.loads(self._vault.decrypt(row.credentials))
        except SetupError as error:
            log.error("bucket_keys_unreadable", target_id=str(row.id), message=error.message)  # noqa: TRY400 - the message says it all
            raise BucketRefused("The bucket's keys cannot be read; set its details again.") from None
        bucket = CustomerBucket(
            Place.from_url(row.endpoint_url, bucket=row.bucket),
            region=row.region,
            directory=row.directory,
            keys=Keys(access=access, secret=secret),
            pool=self._pool,
        )
        return bucket, row

    @contextmanager
    def _one_at_a_time(self, account_id: UUID) -> Iterator[None]:
        with self._lock:
            if account_id in self._trying or len(self._trying) >= _PROBES_AT_ONCE:
                raise RateLimited(
                    "A bucket's details are being tried at the moment; send these in a few seconds.",
                    retry_after=timedelta(seconds=5),
                )
            self._trying.add(account_id)
        try:
            yield
        finally:
            with self._lock:
                self._trying.remove(account_id)


def try_out(bucket: CustomerBucket) -> None:
    """Write, read back and delete a small object, all of it within `PROBE_WITHIN`.

    Raises:
        BucketError: it could not be written, or came back as something else.
    """
    until = time.monotonic() + PROBE_WITHIN.total_seconds()
    name = f"darkroom-probe-{uuid4().hex}.txt"

    def left() -> timedelta:
        return timedelta(seconds=max(0.0, until - time.monotonic()))

    bucket.put(name, _PROBE, media_type="text/plain", within=left())
    try:
        if bucket.get(name, longest=len(_PROBE) + 1, within=left()) != _PROBE:
            raise BucketRefused("The bucket gives back other bytes than it was sent.")
    finally:
        try:
            bucket.delete(name, within=left())
        except BucketError as error:
            # ModelsLab asks for no right to delete, so a key without it has to do.
            log.info("probe_left_behind", error=error.code)


def _complaint(error: BucketError, details: Details) -> FieldProblem:
    field = error.member
    if field == "bucket" and details.bucket is None:
        field = "endpoint_url"
    return FieldProblem(field=field, message=error.message[0].lower() + error.message[1:].rstrip("."))
