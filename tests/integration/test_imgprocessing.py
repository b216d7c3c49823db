"""IMG Processing's dialect on real servers with a worker beside: images made, shown, published, deleted."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image, ImageChops

from app import auth, retention, web
from app.api.imgprocessing_ids import output_id
from app.db import Database
from app.domain import catalog
from app.domain.spec import JobSpec
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.album import IMAGES, Person, corners, file_of, key_of, made, problem, quarters
from tests.drawing import drawing
from tests.factories import picture
from tests.servers import strangers

DAYS = timedelta(days=1)


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file; each comes from an account of its own."""
    made = web.create_app(
        base_settings.model_copy(update={"rate_limit_per_minute": 100_000, "fetch_allow": (strangers.HERE,)})
    )
    yield made
    web.close(made)


@pytest.fixture(autouse=True)
def worker(settings: Settings, database: Database, storage: Storage) -> Iterator[None]:
    with drawing(settings, database, storage):
        yield


@pytest.fixture
def alice(client: FlaskClient, database: Database, settings: Settings) -> Person:
    return Person(client, key_of(database, settings, "alice"))


@pytest.fixture
def alice_in_test(client: FlaskClient, database: Database, settings: Settings) -> Person:
    """The same account with a test key."""
    return Person(client, key_of(database, settings, "alice", prefix=auth.TEST_PREFIX))


@pytest.fixture
def mallory(client: FlaskClient, database: Database, settings: Settings) -> Person:
    return Person(client, key_of(database, settings, "mallory"))


def output_of(database: Database, image: Any) -> Any:
    """The image's row."""
    return rows.query(database, "SELECT * FROM outputs WHERE id = %(id)s", id=output_id(image["id"]))[0]


def spec_of(database: Database, image: Any) -> JobSpec:
    """What the image was made from."""
    return JobSpec.model_validate(rows.job(database, output_of(database, image).job_id).spec)


def path_of(url: str) -> str:
    return urlsplit(url).path


def imagine(person: Person, **body: Any) -> Any:
    return made(person.post(f"{IMAGES}/imagine", json={"name": "cat", "prompt": "a cat", **body}))


# Made from words


def test_every_field_of_imagine_reaches_the_spec(alice: Person, database: Database) -> None:
    image = imagine(alice, prompt="a hill\nat dawn \u2603", negative_prompt="fog", seed=7, model="sdxl")

    spec = spec_of(database, image)
    assert (spec.operation, spec.model, spec.output_format) == ("text_to_image", "sketch", "jpeg")
    assert (spec.prompt, spec.negative_prompt, spec.seed) == ("a hill\nat dawn \u2603", "fog", 7)
    assert (spec.width, spec.height, spec.num_images, spec.test) == (1024, 1024, 1, False)
    job = rows.job(database, output_of(database, image).job_id)
    assert (job.dialect, job.name, job.access, job.persist) == ("imgprocessing", "cat", "private", True)


def test_what_is_imagined_is_a_jpeg_of_1024_by_1024_and_the_seed_decides_it(alice: Person) -> None:
    one, twin = imagine(alice, seed=7, name="one"), imagine(alice, seed=7, name="twin")

    drawn, again = alice.download(one), alice.download(twin)

    assert (one["format"], one["width"], one["height"], one["url"]) == ("jpeg", 1024, 1024, None)
    assert one["id"] != twin["id"]
    assert drawn.format == "JPEG"
    assert ImageChops.difference(drawn, again).getbbox() is None
    assert len(drawn.getcolors(1 << 20) or ()) > 100


def test_a_model_that_the_catalogue_lacks_is_refused_under_its_field(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    file.write_text((Path(catalog.__file__).parent / "models.yaml").read_text().replace("- flux", "- flax"))
    flask = web.create_app(settings.model_copy(update={"models_file": file}))
    try:
        person = Person(flask.test_client(), key_of(database, settings, "alice"))
        body = {"name": "cat", "prompt": "a cat", "model": "flux"}
        told = problem(person.post(f"{IMAGES}/imagine", json=body), 422)
    finally:
        web.close(flask)

    assert told["errors"] == [
        "model: 'flux' is not in this installation's catalogue; leave it out for the default"
    ]


# Brought


def test_an_upload_is_kept_as_its_pixels_and_nothing_else(alice: Person, database: Database) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    script = b"<script>alert(1)</script>"
    image = alice.upload(file_of(quarters(), "JPEG", quality=100, exif=exif) + script, "card")

    assert (image["name"], image["format"], image["width"], image["height"]) == ("card", "jpeg", 40, 20)
    stored = alice.get(f"{IMAGES}/{image['id']}/download").data
    assert b"secret" not in stored
    assert b"script" not in stored
    assert corners(alice.download(image)) == ["r", "g", "b", "rgb"]
    assert output_of(database, image).sha256 == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_outlives_an_upload(kind: str, alice: Person) -> None:
    drawn = quarters(mode="RGBA")
    drawn.paste((0, 0, 0, 0), (0, 0, 20, 10))

    image = alice.upload(file_of(drawn, kind, **({"lossless": True} if kind == "WEBP" else {})))

    assert corners(alice.download(image)) == ["-", "g", "b", "rgb"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415),
        (b"<!doctype html><script>alert(1)</script>", 415),
        (picture(kind="GIF"), 415),
        (picture(kind="BMP"), 415),
        (b"just some text", 415),
        (b"\x89PNG\r\n\x1a\n", 422),
        (picture(64, 64)[:-20], 422),
        (picture(64, 64, kind="JPEG")[:-20], 422),
    ],
)
def test_what_is_no_whole_picture_is_refused_whatever_it_is_called(
    data: bytes, status: int, alice: Person, database: Database
) -> None:
    told = problem(alice.send(data, filename="photo.png"), status)

    assert told["message"].startswith("image: ")
    assert rows.query(database, "SELECT id FROM jobs") == []


def test_a_file_above_20_megabytes_is_refused(alice: Person, database: Database) -> None:
    told = problem(alice.send(picture() + b"\0" * (20 * 1024 * 1024)), 413)

    assert "20,971,520" in told["message"]
    assert rows.query(database, "SELECT id FROM jobs") == []


def test_an_image_is_fetched_where_the_operator_allows_it(alice: Person) -> None:
    with strangers.stranger(strangers.answers(file_of(quarters()), "Content-Type: text/html")) as host:
        image = made(alice.post(IMAGES, json={"name": "far", "url": f"{host.url}/a.png"}))

    assert (image["name"], image["format"]) == ("far", "png")
    assert corners(alice.download(image)) == ["r", "g", "b", "rgb"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (strangers.answers(b"<svg></svg>"), "is not an image we can read"),
        (strangers.answers(b"", status="404 Not Found"), "HTTP status 404"),
        (strangers.answers(picture()[:-9]), "ends too early"),
        (strangers.redirect("http://169.254.169.254/latest/meta-data"), "no address that may be used"),
        (strangers.answers(b"x" * (20 * 1024 * 1024 + 1)), "20,971,520 bytes"),
    ],
)
def test_what_a_url_does_not_give_is_told_under_its_field(
    script: strangers.Script, says: str, alice: Person, database: Database
) -> None:
    with strangers.stranger(script) as host:
        told = problem(alice.post(IMAGES, json={"name": "far", "url": f"{host.url}/a.png"}), 422)

    [error] = told["errors"]
    assert error.startswith("url: ")
    assert says in error
    assert rows.query(database, "SELECT id FROM jobs") == []


def test_a_private_image_cannot_be_fetched_by_the_url_it_would_have(alice: Person, mallory: Person) -> None:
    image = alice.upload()
    url = made(alice.change(image, "publish"))["url"]
    alice.change(image, "unpublish")

    told = problem(mallory.post(IMAGES, json={"name": "mine", "url": url}), 422)

    assert told["errors"] == ["url: names an image that is not there (yet)"]


# Shown


def test_an_image_reads_the_same_wherever_it_is_shown(alice: Person, database: Database) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    image = alice.upload(name="photo")

    assert alice.show(image).get_json() == image
    assert alice.get(IMAGES).get_json()["data"] == [image]
    assert before < datetime.fromisoformat(image["created_at"]) < datetime.now(UTC) + timedelta(seconds=1)
    assert image["size"] == output_of(database, image).size


def test_strangers_and_the_other_kind_of_key_find_nothing(
    alice: Person, alice_in_test: Person, mallory: Person
) -> None:
    live, test = alice.upload(name="live"), alice_in_test.upload(name="test")

    assert [each["name"] for each in alice.get(IMAGES).get_json()["data"]] == ["live"]
    assert [each["name"] for each in alice_in_test.get(IMAGES).get_json()["data"]] == ["test"]
    assert mallory.get(IMAGES).get_json()["data"] == []
    for person, image in ((mallory, live), (mallory, test), (alice, test), (alice_in_test, live)):
        path = f"{IMAGES}/{image['id']}"
        answers = [
            person.get(path),
            person.get(f"{path}/download"),
            person.ask("DELETE", path),
            person.post(f"{path}/publish"),
            person.post(f"{path}/unpublish"),
            person.post(f"{path}/blur"),
            person.post(f"{path}/classify"),
        ]
        for answer in answers:
            assert problem(answer, 404)["message"] == f"Image with id {image['id']} not found."
    mine = mallory.upload()
    told = problem(mallory.change(mine, "watermark", watermarks=[{"id": live["id"]}]), 422)
    assert told["errors"] == ["watermarks.0.id: is not the id of an image of yours"]
    assert alice.show(live).get_json() == live
    assert alice_in_test.show(test).get_json() == test


def test_images_of_other_dialects_are_not_in_the_library(alice: Person, client: FlaskClient) -> None:
    asked = client.post(
        "/v1/images/generate",
        json={"modelId": "sketch", "prompt": "a hill", "width": 16, "height": 16},
        headers={"X-API-Key": alice.key},
    )
    assert asked.status_code == 202
    alice.upload(name="mine")

    assert [each["name"] for each in alice.get(IMAGES).get_json()["data"]] == ["mine"]


def test_a_download_by_head_has_no_body_and_the_rest_of_it(alice: Person) -> None:
    image = alice.upload()

    answer = alice.ask("HEAD", f"{IMAGES}/{image['id']}/download")

    assert (answer.status_code, answer.data) == (200, b"")
    assert (answer.content_type, answer.content_length) == ("image/png", image["size"])


def test_a_download_is_not_kept_by_caches_nor_taken_for_a_page(alice: Person) -> None:
    headers = alice.get(f"{IMAGES}/{alice.upload()['id']}/download").headers

    assert headers["Cache-Control"] == "private, no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_downloads_leave_no_stream_open(alice: Person, flask: Flask) -> None:
    image = alice.upload()

    for _ in range(flask.extensions["darkroom"].settings.web_threads):
        alice.download(image)


# Published


def test_a_published_image_is_everybodys_until_it_is_unpublished(alice: Person, client: FlaskClient) -> None:
    image = alice.upload()
    published = made(alice.change(image, "publish"))
    url = published["url"]

    anybody = client.get(path_of(url))

    assert {**published, "url": None} == image
    assert url.startswith("http://localhost/outputs/")
    assert (anybody.status_code, anybody.content_type) == (200, "image/png")
    assert anybody.data == alice.get(f"{IMAGES}/{image['id']}/download").data
    assert made(alice.change(image, "publish")) == published
    assert alice.show(image).get_json() == published
    assert alice.get(IMAGES).get_json()["data"] == [published]

    assert made(alice.change(image, "unpublish")) == image
    assert made(alice.change(image, "unpublish")) == image
    assert client.get(path_of(url)).status_code == 404
    assert alice.show(image).get_json() == image
    alice.download(image)


def test_before_it_is_published_nobody_finds_an_image_without_a_key(
    alice: Person, client: FlaskClient, database: Database
) -> None:
    image = alice.upload()
    prefix = rows.job(database, output_of(database, image).job_id).output_prefix

    assert client.get(f"/outputs/{prefix.hex}-0.png").status_code == 404
    assert problem(client.get(f"{IMAGES}/{image['id']}/download"), 401)["error"] == "Unauthorized"


def test_a_change_of_a_published_image_is_private(alice: Person) -> None:
    image = alice.upload()
    alice.change(image, "publish")

    assert made(alice.change(image, "mirror", mode="both"))["url"] is None


# Deleted


def test_a_deleted_image_is_gone_everywhere_at_once(
    alice: Person, client: FlaskClient, database: Database, settings: Settings, storage: Storage
) -> None:
    image, other = alice.upload(name="image"), alice.upload(name="other")
    url = made(alice.change(image, "publish"))["url"]
    row = output_of(database, image)
    path = f"{IMAGES}/{image['id']}"

    answer = alice.ask("DELETE", path)

    assert (answer.status_code, answer.data) == (204, b"")
    assert client.get(path_of(url)).status_code in {404, 410}
    for again in (
        alice.get(path),
        alice.get(f"{path}/download"),
        alice.ask("DELETE", path),
        alice.post(f"{path}/publish"),
        alice.post(f"{path}/unpublish"),
        alice.post(f"{path}/blur"),
    ):
        assert problem(again, 404)["message"] == f"Image with id {image['id']} not found."
    assert alice.get(IMAGES).get_json()["data"] == [other]
    assert problem(alice.change(other, "watermark", watermarks=[{"id": image["id"]}]), 422)
    retention.purge(settings, database=database, storage=storage)
    assert not storage.exists(row.key)


# Kept


def test_live_images_stay_for_ever_and_those_of_test_keys_for_90_days(
    alice: Person, alice_in_test: Person, database: Database
) -> None:
    live, test = output_of(database, alice.upload()), output_of(database, alice_in_test.upload())

    assert live.persisted_at is not None
    assert test.persisted_at is None
    assert abs(test.expires_at - test.created_at - 90 * DAYS) < timedelta(seconds=1)


def test_an_operator_may_let_live_images_go(settings: Settings, database: Database) -> None:
    flask = web.create_app(settings.model_copy(update={"library_retention": 2 * DAYS}))
    try:
        person = Person(flask.test_client(), key_of(database, settings, "alice"))
        row = output_of(database, person.upload())
        published = person.upload(picture(9, 9))
        person.change(published, "publish")
    finally:
        web.close(flask)

    assert row.persisted_at is None
    assert abs(row.expires_at - row.created_at - 2 * DAYS) < timedelta(seconds=1)
    assert output_of(database, published).persisted_at is not None


def test_an_image_that_has_expired_is_not_found(alice_in_test: Person, database: Database) -> None:
    image = alice_in_test.upload()
    rows.execute(database, "UPDATE outputs SET expires_at = now() - interval '1 second'")

    problem(alice_in_test.show(image), 404)
    assert alice_in_test.get(IMAGES).get_json()["data"] == []


def test_what_a_test_key_makes_is_watermarked_and_not_counted(alice: Person, alice_in_test: Person) -> None:
    flat = file_of(Image.new("RGB", (256, 256), (40, 90, 160)))
    answers = [person.send(flat) for person in (alice, alice_in_test)]
    live, test = (made(answer) for answer in answers)

    assert [answer.headers.get("X-Image-Processing-Usage") for answer in answers] == ["1", None]
    assert len(alice.download(live).getcolors(1 << 16) or ()) == 1
    assert len(alice_in_test.download(test).getcolors(1 << 16) or ()) > 1


# Pages


@pytest.fixture
def album(alice: Person, database: Database) -> list[str]:
    """Ids of 25 images, the newest first; the rows alone, as their pixels do not matter here."""
    account = rows.query(database, "SELECT id FROM accounts WHERE name = 'alice'")[0].id
    for number in range(25):
        job = rows.insert_job(
            database,
            account,
            dialect="imgprocessing",
            status="completed",
            started_at="now()",
            finished_at="now()",
        )
        rows.insert_output(
            database,
            job,
            key=f"outputs/{number}",
            expires_in=DAYS,
            name=f"{number}",
            access="private",
            test=number % 5 == 0,
        )
    found = alice.get(f"{IMAGES}?take=100").get_json()
    assert [each["name"] for each in found["data"]] == [f"{n}" for n in range(24, -1, -1) if n % 5]
    return [each["id"] for each in found["data"]]


def pages(person: Person, path: str, direction: str) -> Iterator[Any]:
    """Follow the links of one direction to the end, as they are."""
    link: str | None = path
    while link:
        page = person.get(link).get_json()
        yield page
        link = page["links"][direction]
        assert link is None or link.startswith("http://localhost/v1/images?take=")


def names(found: Any) -> list[str]:
    return [each["id"] for each in found["data"]]


def test_pages_lead_to_both_ends(alice: Person, album: list[str]) -> None:
    forth = list(pages(alice, f"{IMAGES}?take=8", "next"))
    back = list(pages(alice, f"{IMAGES}?take=8&from={album[16]}", "previous"))

    assert [names(page) for page in forth] == [album[:8], album[8:16], album[16:]]
    assert [names(page) for page in back] == [album[16:], album[8:16], album[:8]]
    assert forth[0]["links"]["previous"] is None
    assert forth[-1]["links"]["next"] is None
    assert forth[1]["links"]["previous"].endswith(f"take=8&from={album[0]}")


def test_a_page_begins_with_the_image_that_from_names(alice: Person, album: list[str]) -> None:
    found = alice.get(f"{IMAGES}?from={album[3]}&take=2").get_json()

    assert names(found) == album[3:5]
    assert found["links"] == {
        "previous": f"http://localhost/v1/images?take=2&from={album[1]}",
        "next": f"http://localhost/v1/images?take=2&from={album[5]}",
    }


def test_near_the_newest_a_page_before_is_a_full_one(alice: Person, album: list[str]) -> None:
    found = alice.get(f"{IMAGES}?from={album[3]}&take=8").get_json()

    assert names(alice.get(found["links"]["previous"]).get_json()) == album[:8]


def test_ten_images_make_a_page_unless_told_otherwise(alice: Person, album: list[str]) -> None:
    assert names(alice.get(IMAGES).get_json()) == album[:10]
    assert names(alice.get(f"{IMAGES}?take=&from=").get_json()) == album[:10]
    assert names(alice.get(f"{IMAGES}?take=1&from={album[-1]}").get_json()) == album[-1:]


def test_the_place_of_a_deleted_image_still_counts(alice: Person, album: list[str]) -> None:
    for gone in (album[3], album[-1]):
        assert alice.ask("DELETE", f"{IMAGES}/{gone}").status_code == 204

    found = alice.get(f"{IMAGES}?from={album[3]}&take=2").get_json()
    after_the_last = alice.get(f"{IMAGES}?from={album[-1]}&take=2").get_json()

    assert names(found) == album[4:6]
    assert found["links"]["previous"].endswith(album[1])
    assert after_the_last["data"] == []
    assert after_the_last["links"]["next"] is None
    assert names(alice.get(after_the_last["links"]["previous"]).get_json()) == album[-3:-1]


def test_links_name_the_host_that_was_asked_or_the_public_one(
    alice: Person, album: list[str], settings: Settings
) -> None:
    asked = alice.ask("GET", f"{IMAGES}?take=1", headers={"Host": "img.example:8443"}).get_json()
    flask = web.create_app(settings.model_copy(update={"public_url": "https://img.example/base/"}))
    try:
        public = Person(flask.test_client(), alice.key).get(f"{IMAGES}?take=1").get_json()
    finally:
        web.close(flask)

    assert asked["links"]["next"] == f"http://img.example:8443/v1/images?take=1&from={album[1]}"
    assert public["links"]["next"] == f"https://img.example/base/v1/images?take=1&from={album[1]}"


def test_the_answer_of_a_form_can_be_read_back_as_it_was_sent(alice: Person) -> None:
    name = "Ünïcode ☃ & <b>"

    image = alice.upload(name=name)

    assert image["name"] == name
    assert alice.show(image).get_json()["name"] == name
