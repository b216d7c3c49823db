"""What a customer tells us about his bucket, and where that puts an object: pure, no network."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

from minio.helpers import check_bucket_name
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from app.errors import FieldProblem, ForbiddenAddress, InvalidFields
from app.safe_http.urls import MAX_URL, Target, parse

LONGEST_DIRECTORY: Final = 800
"""Bytes; S3 takes keys of 1024, and a file name of ours has under 60."""
_LONGEST_SECRET: Final = 500
_PRINTABLE_ASCII: Final = re.compile(r"[\x21-\x7e]+")
_REGION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_REMEDY: Final = "send the bucket's name as `bucket`, or an address that ends with it, such as https://s3.example.com/my-bucket"
_SERVERS: Final = re.compile(
    # Any server whose name begins with s3: AWS, Backblaze, Wasabi, Scaleway, OVH, IBM and own ones.
    r"s3[.-].+"
    r"|[a-z0-9-]+\.(digitaloceanspaces|linodeobjects|vultrobjects|your-objectstorage)\.com"
    r"|[0-9a-f]{32}\.([a-z]+\.)?r2\.cloudflarestorage\.com"
    r"|storage\.googleapis\.com"
    r"|oss-[a-z0-9-]+\.aliyuncs\.com"
    r"|cos\.[a-z0-9-]+\.myqcloud\.com"
)
"""Names of S3 servers; a host that is one of these behind `<bucket>.` names its bucket."""


class DeployType(StrEnum):
    """Which of ModelsLab's servers the details are for; Darkroom's jobs use those of realtime."""

    TEXT_TO_IMAGE = "text_to_image"
    IMAGE_EDITING = "image_editing"
    VOICE_CLONING = "voice_cloning"
    TEXT_TO_3D = "text_to_3d"
    VIDEO = "video"
    FACE_GEN = "face_gen"
    DEEPFAKE = "deepfake"
    REALTIME = "realtime"
    SUPER_RESOLUTION = "super_resolution"
    FLUX = "flux"
    FLUX_HEADSHOT = "flux_headshot"
    INTERIOR = "interior"
    QWEN = "qwen"
    QWEN_TTS = "qwen_tts"
    FLUX_KONTEXT_DEV = "flux_kontext_dev"
    IMAGE_TO_VIDEO_ULTRA = "image_to_video_ultra"
    Z_IMAGE_TURBO = "z_image_turbo"


def _known_deploy_type(value: object) -> object:
    if not isinstance(value, str) or value not in set(DeployType):
        raise ValueError(f"must be one of {', '.join(DeployType)}")
    return value


def _web_address(text: str) -> str:
    """The address in its one form, if it is one: http or https, a host, perhaps a port; no user, no query."""
    if "?" in text or "#" in text:
        raise ValueError("must have no ? and no #")
    try:
        return parse(text).url
    except ForbiddenAddress as error:
        raise ValueError(f"cannot be used: {error.message}") from None


def _server(target: Target) -> str:
    """Scheme, host and port, without what follows."""
    return replace(target, path="").url


def _public_base(text: str) -> str:
    return _web_address(text).rstrip("/")


def _directory(text: str) -> str:
    parts = [part for part in text.split("/") if part]
    if not text.isprintable() or not {".", ".."}.isdisjoint(parts):
        raise ValueError("must be printable, without . and .. as parts, such as generations/2026")
    whole = "/".join(parts)
    if len(whole.encode()) > LONGEST_DIRECTORY:
        raise ValueError(f"must have at most {LONGEST_DIRECTORY} bytes")
    return whole


def _region(text: str) -> str:
    if not _REGION.fullmatch(text):
        raise ValueError("must be the name of a region, such as us-east-1")
    return text


def _visible(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if len(text) > _LONGEST_SECRET or not _PRINTABLE_ASCII.fullmatch(text):
        raise ValueError(f"must be 1 to {_LONGEST_SECRET} visible ASCII characters")
    return secret


def _bucket_name(text: str) -> str:
    try:
        check_bucket_name(text)
    except ValueError:
        raise ValueError("must be a bucket's name: 3 to 63 letters, digits, dots and hyphens") from None
    return text


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


_STRIP: Final = BeforeValidator(_stripped)
Secret = Annotated[SecretStr, AfterValidator(_visible), _STRIP]


class Details(BaseModel):
    """A customer's bucket as ModelsLab's `update_s3` names its members; validated, but not yet tried.

    The keys do not show in its repr.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    endpoint_url: Annotated[
        str,
        Field(max_length=MAX_URL, description="Address of the S3 server or of the bucket"),
        AfterValidator(_web_address),
        _STRIP,
    ]
    region_name: Annotated[
        str, Field(description="Region, such as us-east-1 or auto"), AfterValidator(_region), _STRIP
    ]
    aws_access_key_id: Annotated[Secret, Field(description="Access key of that store")]
    aws_secret_access_key: Annotated[Secret, Field(description="Secret key of that store")]
    image_directory: Annotated[
        str,
        Field(
            max_length=LONGEST_DIRECTORY, description="Prefix of the keys, such as generations; / for none"
        ),
        AfterValidator(_directory),
        _STRIP,
    ]
    public_url: Annotated[
        str,
        Field(max_length=MAX_URL, description="Base of the URLs under which the bucket is public"),
        AfterValidator(_public_base),
        _STRIP,
    ]
    bucket: Annotated[
        Annotated[str, AfterValidator(_bucket_name), _STRIP] | None,
        Field(description="Darkroom's addition: name of the bucket; default: the one in endpoint_url"),
    ] = None
    deploy_type: Annotated[
        DeployType,
        Field(description="Which server the details are for; img2img and its like use realtime"),
        BeforeValidator(_known_deploy_type),
    ] = DeployType.TEXT_TO_IMAGE


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a bucket is.

    Attributes:
        server: scheme, host and port of the S3 server, without the bucket.
        in_host: whether requests name the bucket in their host, `<bucket>.<host>`, or in their path.
    """

    server: str
    bucket: str
    in_host: bool

    @property
    def url(self) -> str:
        """Give the bucket's own address, under which its objects are."""
        scheme, host = self.server.split("://")
        return f"{scheme}://{self.bucket}.{host}" if self.in_host else f"{self.server}/{self.bucket}"

    @classmethod
    def from_url(cls, url: str, *, bucket: str) -> "Place":
        """Give the place that `url` tells of."""
        if url.endswith(f"/{bucket}") and urlsplit(url).path == f"/{bucket}":
            return cls(server=url.removesuffix(f"/{bucket}"), bucket=bucket, in_host=False)
        return cls(server=url.replace(f"://{bucket}.", "://", 1), bucket=bucket, in_host=True)


def place_of(details: Details) -> Place:
    """Find the bucket: the member `bucket`, else the host of endpoint_url, else its path.

    Raises:
        InvalidFields: it cannot be told, or endpoint_url goes on behind it; says what to send.
    """
    target = parse(details.endpoint_url)
    server, in_path = _server(target), target.path.strip("/")
    in_host = _bucket_in(target.host)
    if details.bucket:
        return _named_place(details.bucket, server=server, in_path=in_path)
    if in_host and in_path:
        raise _problem(f"names the bucket {in_host} in its host and goes on behind it; {_REMEDY}")
    if in_host:
        _check_bucket(in_host)
        return Place(server=server.replace(f"://{in_host}.", "://", 1), bucket=in_host, in_host=True)
    if not in_path:
        raise _problem(f"does not say which bucket; {_REMEDY}")
    _check_bucket(in_path)
    return Place(server=server, bucket=in_path, in_host=False)


def _named_place(bucket: str, *, server: str, in_path: str) -> Place:
    if in_path not in {"", bucket}:
        raise _problem("must have no path but the bucket's name; put the rest into image_directory")
    if not in_path and f"://{bucket}." in server:
        return Place(server=server.replace(f"://{bucket}.", "://", 1), bucket=bucket, in_host=True)
    return Place(server=server, bucket=bucket, in_host=False)


def _bucket_in(host: str) -> str | None:
    """The bucket that a host names; of several readings the one with the longest server."""
    labels = host.split(".")
    for cut in range(1, len(labels) - 1):
        # No bucket has two letters: s3.oss-cn-hangzhou.aliyuncs.com is a server.
        if _SERVERS.fullmatch(".".join(labels[cut:])) and labels[:cut] != ["s3"]:
            return ".".join(labels[:cut])
    return None


def _check_bucket(name: str) -> None:
    try:
        _bucket_name(name)
    except ValueError:
        raise _problem(f"must end with the bucket's name and nothing else; {_REMEDY}") from None


def _problem(message: str, *, field: str = "endpoint_url") -> InvalidFields:
    return InvalidFields(FieldProblem(field=field, message=message))


class Shown(Protocol):
    """What a public link is made of: a row of storage_targets, or the details it is made from."""

    @property
    def public_url(self) -> str: ...  # noqa: D102 - see Details
    @property
    def directory(self) -> str: ...  # noqa: D102 - see Details.image_directory


def public_link(target: Shown, file_name: str) -> str:
    """Give the URL under which a customer's bucket shows an object: `<public_url>/<directory>/<file_name>`.

    The directory is not repeated where public_url ends with it already, as many customers send it.
    """
    base, directory = target.public_url, target.directory
    path = unquote(urlsplit(base).path)
    if directory and not f"{path}/".endswith(f"/{directory}/"):
        base = f"{base}/{quote(directory, safe='/')}"
    return f"{base}/{file_name}"
