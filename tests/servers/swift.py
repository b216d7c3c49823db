"""OpenStack Swift with its S3 API, as one process on loopback; stricter than rclone and kept for the tests.

Run as `python -m tests.servers.swift <folder> <port> <account:user> <secret>`, in a process of its own: Swift
patches sockets and threads, and warns about much. Objects stay in the folder from one run to the next.
"""

import sys
from pathlib import Path

import eventlet  # type: ignore[import-untyped]  # nor is Swift
from eventlet import wsgi
from swift.common import utils  # type: ignore[import-untyped]  # see above
from swift.common.http_protocol import SwiftHttpProtocol  # type: ignore[import-untyped]  # see above
from swift.common.ring.builder import RingBuilder  # type: ignore[import-untyped]  # see above
from swift.common.wsgi import loadapp  # type: ignore[import-untyped]  # see above

SERVERS = ("account", "container", "object")
PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats cache bulk s3api tempauth copy slo dlo"
    " versioned_writes symlink"
)
SWIFT_CONF = "[swift-hash]\nswift_hash_path_suffix = of-a-test\n"
INNER_CONF = """
[DEFAULT]
swift_dir = {etc}
devices = {devices}
mount_check = false
disable_fallocate = true
[pipeline:main]
pipeline = {server}-server
[app:{server}-server]
use = egg:swift#{server}
"""
PROXY_CONF = """
[DEFAULT]
swift_dir = {etc}
[pipeline:main]
pipeline = {pipeline} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_{user} = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_bucket_listing = {page}
multi_delete_concurrency = 8
"""
FILTERS = {"cache": "memcache"}
"""Filters whose entry point in Swift has another name."""
PAGE = 100
"""Keys per page of a listing: short ones, so that paging shows with few objects."""


def main(folder: Path, port: int, access_key: str, secret_key: str) -> None:
    """Serve S3 on 127.0.0.1 at this port until the process is ended."""
    etc = folder / "etc"
    (folder / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    etc.mkdir(exist_ok=True)
    (etc / "swift.conf").write_text(SWIFT_CONF)
    utils.set_swift_dir(str(etc))
    for server in SERVERS:
        # The inner servers ask nobody for a password: loopback only, on whichever port is free.
        inner = eventlet.listen(("127.0.0.1", 0))
        _write_ring(etc, server, inner.getsockname()[1])
        text = INNER_CONF.format(etc=etc, devices=folder / "devices", server=server)
        eventlet.spawn(_serve, inner, _app(etc / f"{server}-server.conf", text))
    proxy = PROXY_CONF.format(
        etc=etc, pipeline=PIPELINE, user=access_key.replace(":", "_"), secret=secret_key, page=PAGE
    )
    for name in PIPELINE.split():
        if f"[filter:{name}]" not in proxy:
            proxy += f"[filter:{name}]\nuse = egg:swift#{FILTERS.get(name, name)}\n"
    _serve(eventlet.listen(("127.0.0.1", port)), _app(etc / "proxy-server.conf", proxy))


def _write_ring(etc: Path, server: str, port: int) -> None:
    ring = RingBuilder(1, 1, 1)  # two partitions, one replica
    device = {"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": port, "device": "disk"}
    ring.add_dev(device)
    ring.rebalance()
    ring.get_ring().save(str(etc / f"{server}.ring.gz"))


def _app(path: Path, text: str) -> object:
    path.write_text(text)
    return loadapp(str(path))


def _serve(listener: object, app: object) -> None:
    wsgi.server(
        listener, app, utils.NullLogger(), protocol=SwiftHttpProtocol, capitalize_response_headers=False
    )


if __name__ == "__main__":
    utils.monkey_patch()
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
