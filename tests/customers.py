"""A customer who has an S3 server of his own: a second real one, beside the one of the local stack."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from app.buckets import DeployType, Details
from app.settings import Settings
from app.storage import Storage, open_store
from tests.servers import SECRET_KEY, Server

PUBLIC_URL = "https://cdn.customer.example"
DIRECTORY = "generations/mine"
_KEPT = f"{DIRECTORY}/kept"
"""Always there: of two puts into a folder that is not, rclone answers one with 500."""


@dataclass
class Customer:
    """His server with a bucket, and how he and Darkroom see it."""

    server: Server
    bucket: str = "pictures"
    store: Storage = field(init=False)
    """The bucket as its owner looks at it."""

    def __post_init__(self) -> None:
        self.store = open_store(self.server.settings.model_copy(update={"s3_bucket": self.bucket}))
        self.store.ensure_bucket()
        self.store.put(_KEPT, b"", media_type="text/plain")

    @property
    def address(self) -> str:
        """Host and port."""
        return urlsplit(self.server.settings.s3_endpoint).netloc

    def allowed(self, settings: Settings) -> Settings:
        """Settings of an operator who lets his customers use this server on loopback."""
        return settings.model_copy(update={"bucket_allow": (self.address,)})

    def details(self, **changes: Any) -> Details:
        """What the customer sends."""
        return Details.model_validate(
            {
                "endpoint_url": f"{self.server.settings.s3_endpoint}/{self.bucket}",
                "region_name": "us-east-1",
                "aws_access_key_id": self.server.settings.s3_access_key.get_secret_value(),
                "aws_secret_access_key": SECRET_KEY,
                "image_directory": f"/{DIRECTORY}/",
                "public_url": PUBLIC_URL,
                "deploy_type": DeployType.REALTIME,
                **changes,
            }
        )

    def names(self) -> list[str]:
        """Keys of all objects in the bucket, but for one that is always there."""
        return [found.key for found in self.store.list("") if found.key != _KEPT]

    def media_type(self, key: str) -> str | None:
        """What the server says that an object is."""
        return self.store._client.stat_object(self.bucket, key).content_type

    @contextmanager
    def away(self) -> Iterator[None]:
        """His server is ended, and started again at the end."""
        self.server.end()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """His server takes connections and says nothing, until the end."""
        self.server.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.server.send(signal.SIGCONT)

    def empty(self) -> None:
        """Delete all objects in the bucket."""
        self.store.delete(self.names())
