"""IMG Processing's dialect where it needs no server: ids, origins, both forms of modulate, errors."""

import re
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.api import http, imgprocessing, realm
from app.api.imgprocessing_ids import image_id, output_id
from app.api.imgprocessing_models import Image, ModulateRequest
from app.api.imgprocessing_origins import HOSTS, Origins
from app.api.imgprocessing_transforms import CHANGES, transform_of
from app.domain.spec import Operation
from app.domain.transform import Modulate
from app.errors import FieldProblem, Gone, InvalidFields, NotOffered, UnknownOutput
from app.settings import Settings
from tests.album import ID

MOST = UUID(int=2**128 - 1)


@given(st.uuids())
def test_an_id_leads_back_to_its_uuid_and_has_the_vendors_form(made: UUID) -> None:
    shown = image_id(made)

    assert re.fullmatch(ID, shown)
    assert output_id(shown) == made


@given(st.lists(st.uuids(), min_size=2, max_size=2))
def test_ids_sort_as_their_uuids_do(pair: list[UUID]) -> None:
    one, other = pair
    assert (image_id(one) < image_id(other)) == (one < other)


def test_the_smallest_and_the_largest_id_are_these() -> None:
    assert image_id(UUID(int=0)) == "image_" + "0" * 24
    assert image_id(UUID(int=61)) == "image_" + "0" * 23 + "z"
    assert image_id(UUID(int=62)) == "image_" + "0" * 22 + "10"
    assert output_id(image_id(MOST)) == MOST


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "image_",
        "image_" + "0" * 23,
        "image_" + "0" * 25,
        "IMAGE_" + "0" * 24,
        "img_" + "0" * 24,
        "image_" + "0" * 23 + "-",
        "image_" + "0" * 23 + "é",
        "image_" + "\N{ARABIC-INDIC DIGIT ZERO}" * 24,
        "image_" + "0" * 24 + "\n",
        "image_" + "z" * 24,
        image_id(MOST)[:-1] + "z",
    ],
)
def test_what_no_output_can_be_called_is_not_found(shown: str) -> None:
    with pytest.raises(UnknownOutput, match="not found"):
        output_id(shown)


@pytest.mark.parametrize(
    ("path", "mine"),
    [
        ("/v1/images", True),
        ("/v1/images/imagine", True),
        ("/v1/images/upload", True),
        ("/v1/images/image_0", True),
        ("/v1/images/image_0/resize", True),
        ("/v1/images/image_0/no/such/thing", True),
        ("/v1/images/", False),
        ("/v1/images/generate", False),
        ("/v1/images/modify", False),
        ("/v1/images/generations", False),
        ("/v1/images/jobs/job_0", False),
        ("/v1/images/img_0", False),
        ("/v1/image", False),
        ("/v2/images", False),
    ],
)
def test_it_owns_its_own_addresses_and_no_other_dialects(path: str, *, mine: bool) -> None:
    assert imgprocessing.owns(path) is mine
    if not mine and path.startswith("/v1/images/"):
        assert realm.owns(path)


def test_every_operation_on_an_image_has_an_endpoint() -> None:
    changes = {Operation(kind.replace("-", "_")) for kind in CHANGES}

    assert changes == {each for each in Operation if each.transforms} - {Operation.IMPORT}


# Both forms of modulate


def modulate(**body: object) -> Modulate:
    made = transform_of(http.parse(ModulateRequest, body))
    assert isinstance(made, Modulate)
    return made


def test_percents_are_handed_on_as_they_are() -> None:
    made = modulate(brightness=10, contrast=-20, saturation=30.5, exposure=-100, name="x")

    assert made == Modulate(brightness=10, contrast=-20, saturation=30.5, exposure=-100)


def test_without_hue_and_lightness_a_half_is_half_a_percent() -> None:
    assert modulate(brightness=0.5) == Modulate(brightness=0.5)


def test_hue_or_lightness_make_brightness_and_saturation_factors() -> None:
    made = modulate(brightness=0.5, saturation=2, hue=120)

    assert made == Modulate(brightness=-50, saturation=100, hue=120)
    assert modulate(lightness=-10) == Modulate(lightness=-10)
    assert modulate(hue=0, brightness=1) == Modulate()


def test_the_two_forms_do_not_mix_and_factors_have_an_end() -> None:
    with pytest.raises(InvalidFields) as refused:
        modulate(hue=1, contrast=0, exposure=1, brightness=2.5, saturation=-0.1)

    assert [problem.field for problem in refused.value.problems] == [
        "contrast",
        "exposure",
        "brightness",
        "saturation",
    ]


# Origins


def origins(*allowed: str) -> Origins:
    return Origins(
        Settings(
            database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"),
            broker_url=SecretStr("redis://127.0.0.1:1/0"),
            s3_endpoint="http://127.0.0.1:1",
            s3_access_key=SecretStr("none"),
            s3_secret_key=SecretStr("none"),
            secret_key=SecretStr("x" * 32),
            fetch_allow=allowed,
        )
    )


HOUSE = "https://img.example:8443"
OURS = f"{HOUSE}/outputs/{'0a' * 16}-0.png"


@pytest.mark.parametrize(
    "url",
    [
        "https://bucket.s3.amazonaws.com/a.png",
        "https://bucket.s3.eu-west-1.amazonaws.com/a.png",
        "https://s3.amazonaws.com/bucket/a.png",
        "https://account.blob.core.windows.net/c/a.png",
        "https://pub-1.r2.dev/a.png",
        "https://www.dropbox.com/s/a.png?dl=1",
        "https://storage.googleapis.com/b/a.png",
        "HTTPS://DRIVE.GOOGLE.COM/uc?id=1",
        "https://1drv.ms/i/a",
        "https://storage.img-processing.com/og-image.jpg",
        OURS,
    ],
)
def test_the_vendors_origins_and_our_own_outputs_are_allowed(url: str) -> None:
    origins().refuse_others(url, base_url=HOUSE)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://storage.googleapis.com/b/a.png",
        "https://storage.googleapis.com.evil.example/b/a.png",
        "https://evil.example/storage.googleapis.com",
        "https://storage.googleapis.com@evil.example/",
        "https://evilr2.dev/a.png",
        "https://r2.dev/a.png",
        "https://s3.amazonaws.com.evil.example/a.png",
        "https://127.0.0.1/a.png",
        "https://[::1]/a.png",
        f"{HOUSE}/v1/images",
        f"{HOUSE}/outputs/../etc/passwd",
        f"{HOUSE}.evil.example/outputs/{'0a' * 16}-0.png",
        OURS.replace("-0.png", "-0.svg"),
        "file:///etc/passwd",
        "//storage.googleapis.com/a.png",
        "storage.googleapis.com/a.png",
        "data:image/png;base64,AAAA",
        "https://storage.googleapis.com\\@evil.example/",
        " https://storage.googleapis.com/a.png",
    ],
)
def test_all_other_origins_are_refused_under_the_name_of_the_field(url: str) -> None:
    for base_url in (HOUSE, ""):
        with pytest.raises(InvalidFields) as refused:
            origins().refuse_others(url, base_url=base_url)
        assert [problem.field for problem in refused.value.problems] == ["url"]


def test_a_refusal_names_the_origins_there_are() -> None:
    with pytest.raises(InvalidFields) as refused:
        origins().refuse_others("https://example.com/a.png", base_url="")

    assert all(host in refused.value.message for host in HOSTS)


def test_the_operator_may_add_origins_with_any_scheme_and_port() -> None:
    house = origins("127.0.0.2", "127.0.0.3:8080")

    house.refuse_others("http://127.0.0.2:99/a.png", base_url="")
    house.refuse_others("https://127.0.0.3:8080/a.png", base_url="")
    for other in ("http://127.0.0.3/a.png", "http://127.0.0.1:99/a.png", "https://127.0.0.4/a.png"):
        with pytest.raises(InvalidFields):
            house.refuse_others(other, base_url="")


# What is shown


def test_a_moment_is_told_in_utc_with_milliseconds_and_a_z() -> None:
    image = Image(
        id=image_id(MOST),
        name="x",
        url=None,
        width=1,
        height=1,
        format="png",
        size=1,
        created_at=datetime(2024, 8, 7, 14, 40, 55, 712_999, timezone(timedelta(hours=2))),
    )

    assert image.model_dump(mode="json")["created_at"] == "2024-08-07T12:40:55.712Z"
    whole = image.model_copy(update={"created_at": datetime(2024, 8, 7, tzinfo=UTC)})
    assert whole.model_dump(mode="json")["created_at"] == "2024-08-07T00:00:00.000Z"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (UnknownOutput("Image with id x not found."), "not-found", "Not Found"),
        (Gone(), "gone", "Gone"),
        (NotOffered(), "not-implemented", "Not Implemented"),
        (InvalidFields(FieldProblem(field="name", message="is required")), "unprocessable-entity", None),
    ],
)
def test_an_error_names_its_kind_for_both_of_the_vendors_clients(
    error: UnknownOutput | InvalidFields, kind: str, words: str | None
) -> None:
    with Flask("test").test_request_context():
        answer = imgprocessing.present_error(error)

    body = answer.get_json()
    assert answer.content_type == "application/problem+json"
    assert body["type"] == f"https://docs.img-processing.com/errors/{kind}"
    assert body["error"] == body["title"] == (words or "Unprocessable Entity")
    assert (body["status"], body["message"]) == (error.http_status, error.message)
    assert body.get("errors") == (None if words else ["name: is required"])
