"""What customers write about their buckets, and where that puts an object."""

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from app.api.http import parse
from app.buckets import DeployType, Details, Place, place_of, public_link
from app.errors import InvalidFields

SECRET = "hush-hush-hush"
R2 = "0123456789abcdef" * 2 + ".r2.cloudflarestorage.com"


def details(**changes: Any) -> Details:
    return Details.model_validate(body(**changes))


def body(**changes: Any) -> dict[str, Any]:
    return {
        "endpoint_url": "https://s3.eu-west-1.amazonaws.com/pictures",
        "region_name": "eu-west-1",
        "aws_access_key_id": "AKIAEXAMPLE",
        "aws_secret_access_key": SECRET,
        "image_directory": "generations",
        "public_url": "https://cdn.example.com",
        **changes,
    }


def problems(**changes: Any) -> dict[str, str]:
    """What is wrong with such a body, by field, as a dialect would tell it."""
    with pytest.raises(InvalidFields) as caught:
        place_of(parse(Details, body(**changes)))
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("endpoint", "server", "bucket"),
    [
        ("https://pictures.s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com", "pictures"),
        ("https://pictures.s3.amazonaws.com/", "https://s3.amazonaws.com", "pictures"),
        ("https://pictures.s3-eu-west-1.amazonaws.com", "https://s3-eu-west-1.amazonaws.com", "pictures"),
        ("https://my.pictures.s3.amazonaws.com", "https://s3.amazonaws.com", "my.pictures"),
        ("https://s3-stuff.s3.us-east-1.amazonaws.com", "https://s3.us-east-1.amazonaws.com", "s3-stuff"),
        (
            "https://pictures.s3.dualstack.eu-west-1.amazonaws.com",
            "https://s3.dualstack.eu-west-1.amazonaws.com",
            "pictures",
        ),
        ("https://pictures.nyc3.digitaloceanspaces.com", "https://nyc3.digitaloceanspaces.com", "pictures"),
        ("HTTPS://Pictures.NYC3.DigitalOceanSpaces.com/", "https://nyc3.digitaloceanspaces.com", "pictures"),
        (f"https://pictures.{R2}", f"https://{R2}", "pictures"),
        ("https://pictures.storage.googleapis.com", "https://storage.googleapis.com", "pictures"),
        ("https://pictures.oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com", "pictures"),
        (
            "https://pictures.s3.us-west-004.backblazeb2.com",
            "https://s3.us-west-004.backblazeb2.com",
            "pictures",
        ),
        ("http://pictures.s3.example.com:9000", "http://s3.example.com:9000", "pictures"),
    ],
)
def test_a_host_that_begins_with_the_bucket_names_it(endpoint: str, server: str, bucket: str) -> None:
    assert place_of(details(endpoint_url=endpoint)) == Place(server=server, bucket=bucket, in_host=True)


@pytest.mark.parametrize(
    ("endpoint", "server", "bucket"),
    [
        ("https://s3.eu-west-1.amazonaws.com/pictures", "https://s3.eu-west-1.amazonaws.com", "pictures"),
        ("https://storage.googleapis.com/pictures/", "https://storage.googleapis.com", "pictures"),
        (f"https://{R2}/pictures", f"https://{R2}", "pictures"),
        (
            "https://s3.oss-cn-hangzhou.aliyuncs.com/pictures",
            "https://s3.oss-cn-hangzhou.aliyuncs.com",
            "pictures",
        ),
        ("http://127.0.0.1:9000/pictures", "http://127.0.0.1:9000", "pictures"),
        ("http://[2001:db8::1]:9000/pictures", "http://[2001:db8::1]:9000", "pictures"),
        ("https://pictures.example.com/pictures", "https://pictures.example.com", "pictures"),
        ("  https://minio.example.com/my_pictures ", "https://minio.example.com", "my_pictures"),
    ],
)
def test_a_path_names_the_bucket_where_the_host_does_not(endpoint: str, server: str, bucket: str) -> None:
    assert place_of(details(endpoint_url=endpoint)) == Place(server=server, bucket=bucket, in_host=False)


@pytest.mark.parametrize(
    ("endpoint", "in_host"),
    [
        ("https://minio.example.com", False),
        ("https://minio.example.com/pictures", False),
        ("https://pictures.minio.example.com", True),
        ("https://pictures.minio.example.com/pictures", False),
        # Nobody could tell by the name alone that this host is a server and no bucket named minio.
        ("https://minio.s3.example.com", False),
    ],
)
def test_the_member_bucket_wins(endpoint: str, in_host: bool) -> None:  # noqa: FBT001 - a column of the table
    place = place_of(details(endpoint_url=endpoint, bucket="pictures"))

    assert (place.bucket, place.in_host) == ("pictures", in_host)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://minio.example.com",
        "https://s3.eu-west-1.amazonaws.com/",
        f"https://{R2}",
        "https://10.1.2.3:9000",
    ],
)
def test_an_endpoint_without_a_bucket_says_how_to_name_it(endpoint: str) -> None:
    told = problems(endpoint_url=endpoint)

    assert told.keys() == {"endpoint_url"}
    assert told["endpoint_url"].startswith("does not say which bucket; send the bucket's name as `bucket`")


@pytest.mark.parametrize(
    ("endpoint", "begins"),
    [
        ("https://pictures.s3.amazonaws.com/generations", "names the bucket pictures in its host"),
        ("https://s3.amazonaws.com/pictures/generations", "must end with the bucket's name"),
        ("https://s3.amazonaws.com/p", "must end with the bucket's name"),
        ("https://s3.amazonaws.com/pict%20ures", "must end with the bucket's name"),
    ],
)
def test_an_endpoint_that_goes_on_behind_the_bucket_is_refused(endpoint: str, begins: str) -> None:
    assert problems(endpoint_url=endpoint)["endpoint_url"].startswith(begins)


def test_a_path_other_than_the_member_bucket_is_refused() -> None:
    told = problems(endpoint_url="https://minio.example.com/generations", bucket="pictures")

    assert told == {
        "endpoint_url": "must have no path but the bucket's name; put the rest into image_directory"
    }


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("endpoint_url", "s3.amazonaws.com/pictures", "cannot be used: The URL must begin with http"),
        ("endpoint_url", "ftp://s3.amazonaws.com/pictures", "cannot be used: The URL must begin with http"),
        (
            "endpoint_url",
            "https://user:pw@s3.amazonaws.com/pictures",
            "cannot be used: The URL must not name",
        ),
        ("endpoint_url", "https://s3.amazonaws.com/pictures?x=1", "must have no ?"),
        ("endpoint_url", "https://s3.amazonaws.com/pictures#x", "must have no ?"),
        ("endpoint_url", "https://s3.amazonaws.com:0/pictures", "cannot be used: The URL's port"),
        ("endpoint_url", "https://[::1/pictures", "cannot be used: The URL's host or port"),
        ("endpoint_url", "https:///pictures", "cannot be used: The URL's host"),
        ("endpoint_url", "https://2130706433/pictures", "cannot be used: An IPv4 address must be"),
        ("endpoint_url", "https://s3.amazonaws.com\\@10.0.0.1/x", "cannot be used: The URL must not contain"),
        ("endpoint_url", "https://s3.amazonaws.com/pictures\r\nHost: x", "cannot be used: The URL must not"),
        ("endpoint_url", 7, "must be a string"),
        ("public_url", "cdn.example.com", "cannot be used: The URL must begin with http"),
        ("public_url", "javascript:alert(1)", "cannot be used: The URL must begin with http"),
        ("public_url", "https://cdn.example.com/?x=1", "must have no ?"),
        ("public_url", "https://cdn.example.com/?", "must have no ?"),
        ("region_name", "", "must be the name of a region"),
        ("region_name", "eu west", "must be the name of a region"),
        ("aws_access_key_id", "", "must be 1 to 500 visible ASCII"),
        ("aws_secret_access_key", "a\nb", "must be 1 to 500 visible ASCII"),
        ("aws_secret_access_key", "x" * 501, "must be 1 to 500 visible ASCII"),
        ("aws_secret_access_key", ["x"], "must be a string"),
        ("image_directory", "a/../b", "must be printable, without . and .."),
        ("image_directory", "./a", "must be printable, without . and .."),
        ("image_directory", "a\x00b", "must be printable"),
        ("image_directory", "ä" * 401, "must have at most 800 bytes"),
        ("bucket", "UP", "must be a bucket's name"),
        ("bucket", "a/b/c", "must be a bucket's name"),
        ("bucket", "192.168.0.1", "must be a bucket's name"),
        ("deploy_type", "realtimes", "must be one of text_to_image, image_editing"),
        ("deploy_type", ["realtime"], "must be one of text_to_image"),
    ],
)
def test_what_cannot_be_is_refused_under_its_own_name(field: str, value: object, says: str) -> None:
    told = problems(**{field: value})

    assert told.keys() == {field}
    assert told[field].startswith(says)


def test_every_member_but_two_is_required() -> None:
    with pytest.raises(InvalidFields) as caught:
        parse(Details, {})

    assert {(problem.field, problem.message) for problem in caught.value.problems} == {
        (name, "is required") for name in body()
    }
    assert details().deploy_type is DeployType.TEXT_TO_IMAGE  # as ModelsLab documents


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("generations", "generations"), ("/a//b/", "a/b"), ("/", ""), (" mine and yours ", "mine and yours")],
)
def test_a_directory_has_no_slashes_at_its_ends(sent: str, kept: str) -> None:
    assert details(image_directory=sent).image_directory == kept


def test_keys_show_neither_in_reprs_nor_in_errors() -> None:
    assert SECRET not in repr(details())
    assert "AKIAEXAMPLE" not in repr(details())
    with pytest.raises(ValidationError) as caught:
        details(aws_secret_access_key=f"{SECRET}\n\n{SECRET}", region_name="")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "in_host", "url"),
    [
        ("https://s3.amazonaws.com", True, "https://pictures.s3.amazonaws.com"),
        ("http://127.0.0.1:9000", False, "http://127.0.0.1:9000/pictures"),
        ("https://pictures.example.com", False, "https://pictures.example.com/pictures"),
        ("https://pictures.example.com", True, "https://pictures.pictures.example.com"),
    ],
)
def test_a_place_is_the_same_when_it_comes_back_from_its_url(server: str, in_host: bool, url: str) -> None:  # noqa: FBT001 - a column of the table
    place = Place(server=server, bucket="pictures", in_host=in_host)

    assert place.url == url
    assert Place.from_url(url, bucket="pictures") == place


@dataclass(frozen=True)
class Target:
    """What a link is made of."""

    public_url: str
    directory: str


@pytest.mark.parametrize(
    ("public_url", "directory", "link"),
    [
        ("https://cdn.example.com", "generations", "https://cdn.example.com/generations/a-0.png"),
        ("https://cdn.example.com/generations", "generations", "https://cdn.example.com/generations/a-0.png"),
        ("https://cdn.example.com/x/a/b", "a/b", "https://cdn.example.com/x/a/b/a-0.png"),
        ("https://cdn.example.com/xa/b", "a/b", "https://cdn.example.com/xa/b/a/b/a-0.png"),
        ("https://cdn.example.com/my%20pics", "my pics", "https://cdn.example.com/my%20pics/a-0.png"),
        ("https://cdn.example.com", "my pics/ä", "https://cdn.example.com/my%20pics/%C3%A4/a-0.png"),
        ("https://cdn.example.com", "", "https://cdn.example.com/a-0.png"),
    ],
)
def test_a_public_link_has_the_directory_once(public_url: str, directory: str, link: str) -> None:
    assert public_link(Target(public_url, directory), "a-0.png") == link


@pytest.mark.parametrize("sent", ["https://CDN.example.com/x/", "https://cdn.example.com/x///"])
def test_a_public_url_is_kept_without_slashes_at_its_end(sent: str) -> None:
    assert details(public_url=sent).public_url == "https://cdn.example.com/x"
