"""Changes of an image as IMG Processing's clients ask for them, from the request to the pixels downloaded."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app import auth, web
from app.api.imgprocessing_ids import output_id
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from tests import rows
from tests.album import Person, colour_at, corners, file_of, key_of, made, problem, quarters
from tests.drawing import drawing

CARD = file_of(quarters())
"""40 x 20, red and lime above, blue and white below."""


@pytest.fixture(scope="module")
def flask(base_settings: Settings) -> Iterator[Flask]:
    """One application for all tests of this file; each comes from an account of its own."""
    made = web.create_app(base_settings.model_copy(update={"rate_limit_per_minute": 100_000}))
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
def card(alice: Person) -> Any:
    return alice.upload(CARD, "card")


def changed(person: Person, image: Any, kind: str, **body: Any) -> Image.Image:
    """Change an image and give the new one's pixels."""
    return person.download(made(person.change(image, kind, **body)))


# Every change


def test_a_change_makes_a_new_image_and_leaves_the_old_one(
    alice: Person, card: Any, database: Database
) -> None:
    new = made(alice.change(card, "resize", width=20))

    assert new["id"] != card["id"]
    assert new["name"] == "card"
    assert alice.show(card).get_json() == card
    assert alice.download(card).size == (40, 20)
    row = rows.query(database, "SELECT * FROM outputs WHERE id = %(id)s", id=output_id(new["id"]))[0]
    job = rows.job(database, row.job_id)
    assert (job.dialect, job.operation, job.provider, job.queue) == (
        "imgprocessing",
        "resize",
        "pillow",
        "cpu",
    )
    assert row.persisted_at is not None
    assert row.access == "private"


def test_a_change_may_give_the_new_image_a_name(alice: Person, card: Any) -> None:
    named = made(alice.change(card, "blur", name="soft"))

    assert named["name"] == "soft"
    assert made(alice.change(named, "mirror", mode="both"))["name"] == "soft"


def test_changes_can_be_chained(alice: Person, card: Any) -> None:
    turned = made(alice.change(card, "rotate", angle=90))
    cut = made(alice.change(turned, "crop", x1=0, y1=0, x2=20, y2=20))

    found = changed(alice, cut, "mirror", mode="horizontal")

    assert found.size == (20, 20)
    assert corners(alice.download(turned)) == ["b", "r", "rgb", "g"]
    assert corners(found) == ["r", "b", "r", "b"]


def test_what_a_test_key_changes_is_seen_with_test_keys(
    client: FlaskClient, database: Database, settings: Settings
) -> None:
    person = Person(client, key_of(database, settings, "alice", prefix=auth.TEST_PREFIX))
    image = person.upload(CARD)

    new = made(person.change(image, "mirror", mode="both"))

    assert person.show(new).get_json() == new
    row = rows.query(database, "SELECT * FROM outputs WHERE id = %(id)s", id=output_id(new["id"]))[0]
    assert (row.test, row.persisted_at) == (True, None)


# Each of them


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"width": 80, "height": 80}, (80, 80)),
        ({"width": 20}, (20, 10)),
        ({"height": 5}, (10, 5)),
        ({}, (40, 20)),
    ],
)
def test_resize_fills_the_size_and_keeps_proportions_where_a_side_is_left_out(
    body: dict[str, Any], size: tuple[int, int], alice: Person, card: Any
) -> None:
    found = changed(alice, card, "resize", **body)

    assert found.size == size
    assert corners(found) == ["r", "g", "b", "rgb"]


def test_resize_contains_with_a_letterbox_at_its_place(alice: Person, card: Any) -> None:
    body = {"width": 40, "height": 40, "fit": "contain"}

    centred = changed(alice, card, "resize", **body)
    top = changed(alice, card, "resize", **body, position="top-left", letterbox_color="magenta")

    assert corners(centred) == ["-", "-", "-", "-"]
    assert colour_at(centred, (0, 10)) == "r"
    assert corners(top) == ["r", "g", "rb", "rb"]


def test_resize_covers_and_keeps_the_part_at_its_place(alice: Person, card: Any) -> None:
    body = {"width": 10, "height": 20, "fit": "cover"}

    assert corners(changed(alice, card, "resize", **body)) == ["r", "g", "b", "rgb"]
    assert corners(changed(alice, card, "resize", **body, position="left")) == ["r", "r", "b", "b"]
    assert corners(changed(alice, card, "resize", **body, position="right")) == ["g", "g", "rgb", "rgb"]


def test_crop_keeps_what_lies_between_the_corners(alice: Person, card: Any) -> None:
    found = changed(alice, card, "crop", x1=20, y1=10, x2=40, y2=20)

    assert found.size == (20, 10)
    assert found.convert("RGB").getcolors() == [(200, (255, 255, 255))]


@pytest.mark.parametrize(
    ("body", "size", "expected"),
    [
        ({"angle": 90}, (20, 40), ["b", "r", "rgb", "g"]),
        ({"angle": -90}, (20, 40), ["g", "rgb", "r", "b"]),
        ({"angle": math.pi, "unit": "radians"}, (40, 20), ["rgb", "b", "g", "r"]),
        ({"angle": 45}, (43, 43), ["", "", "", ""]),
        ({"angle": 45, "background_color": "#ff00ff"}, (43, 43), ["rb"] * 4),
        ({"angle": 45, "background_color": "transparent"}, (43, 43), ["-"] * 4),
    ],
)
def test_rotate_turns_clockwise_on_a_canvas_that_grows(
    body: dict[str, Any], size: tuple[int, int], expected: list[str], alice: Person, card: Any
) -> None:
    found = changed(alice, card, "rotate", **body)

    assert found.size == size
    assert corners(found) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("horizontal", ["g", "r", "rgb", "b"]),
        ("vertical", ["b", "rgb", "r", "g"]),
        ("both", ["rgb", "b", "g", "r"]),
    ],
)
def test_mirror_exchanges_sides(mode: str, expected: list[str], alice: Person, card: Any) -> None:
    assert corners(changed(alice, card, "mirror", mode=mode)) == expected


@pytest.mark.parametrize("word", ["jpeg", "jpg", "webp", "png"])
def test_convert_changes_the_format_and_jpg_is_jpeg(word: str, alice: Person, card: Any) -> None:
    image = made(alice.change(card, "convert", format=word))

    assert image["format"] == word.replace("jpg", "jpeg")
    assert corners(alice.download(image)) == ["r", "g", "b", "rgb"]


def test_convert_honours_the_quality(alice: Person) -> None:
    noise = alice.upload(file_of(Image.effect_noise((128, 128), 90).convert("RGB")))

    sizes = [
        made(alice.change(noise, "convert", format="jpeg", quality=quality))["size"] for quality in (10, 95)
    ]

    assert sizes[0] * 2 < sizes[1]


def test_transparent_parts_become_white_in_a_jpeg(alice: Person) -> None:
    clear = alice.upload(file_of(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))

    assert corners(changed(alice, clear, "convert", format="jpeg")) == ["rgb"] * 4


def test_blur_mixes_what_lies_side_by_side(alice: Person, card: Any) -> None:
    found = changed(alice, card, "blur", sigma=3)
    red, green, blue = found.convert("RGB").getpixel((20, 0))  # type: ignore[misc]  # an RGB pixel

    assert 60 < red < 200
    assert 60 < green < 200
    assert blue < 60
    assert len(found.getcolors(1 << 16) or ()) > 50


def test_modulate_takes_percents(alice: Person, card: Any) -> None:
    assert corners(changed(alice, card, "modulate", brightness=-100)) == [""] * 4
    grey = changed(alice, card, "modulate", saturation=-100).convert("RGB").getpixel((0, 0))
    assert isinstance(grey, tuple)
    assert max(grey) - min(grey) <= 1
    assert corners(changed(alice, card, "modulate")) == ["r", "g", "b", "rgb"]


def test_modulate_takes_the_older_forms_factors_and_degrees(alice: Person, card: Any) -> None:
    was_red = changed(alice, card, "modulate", hue=120).convert("RGB").getpixel((0, 0))
    assert isinstance(was_red, tuple)
    assert was_red[1] > was_red[0] + 50
    assert was_red[1] > was_red[2] + 50
    assert corners(changed(alice, card, "modulate", hue=360, brightness=1)) == ["r", "g", "b", "rgb"]
    assert corners(changed(alice, card, "modulate", hue=0, brightness=0)) == [""] * 4
    assert corners(changed(alice, card, "modulate", lightness=100)) == ["rgb"] * 4


def test_watermarks_lie_where_they_are_put_and_as_often_as_asked(alice: Person) -> None:
    ground = alice.upload(file_of(Image.new("RGB", (40, 20), "black")))
    red = alice.upload(file_of(Image.new("RGB", (4, 4), "red")))
    blue = alice.upload(file_of(Image.new("RGB", (8, 8), "blue")))

    once = changed(alice, ground, "watermark", watermarks=[{"id": red["id"], "left": 10, "top": 5}])
    rows_of = changed(
        alice,
        ground,
        "watermark",
        watermarks=[
            {"id": red["id"], "repetition_mode": "repeat_x"},
            {"id": blue["id"], "left": 36, "top": 16, "width": 4, "height": 4},
        ],
    )

    assert once.convert("RGB").getcolors() == [(16, (255, 0, 0)), (40 * 20 - 16, (0, 0, 0))]
    assert [colour_at(once, place) for place in ((9, 5), (10, 5), (13, 8), (14, 8))] == ["", "r", "r", ""]
    assert corners(rows_of) == ["r", "r", "", "b"]
    assert colour_at(rows_of, (20, 3)) == "r"
    assert colour_at(rows_of, (20, 4)) == ""


def test_the_same_watermark_may_lie_there_five_times_and_not_six(alice: Person, card: Any) -> None:
    mark = {"id": card["id"], "width": 2, "height": 2}

    assert made(alice.change(card, "watermark", watermarks=[mark] * 5))
    told = problem(alice.change(card, "watermark", watermarks=[mark] * 6), 422)

    assert told["errors"] == ["watermarks: must be a list of 1 to 5 objects, each with the id of an image"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_flat_background_is_removed_into_a_png(kind: str, alice: Person) -> None:
    drawn = Image.new("RGB", (60, 60), "white")
    drawn.paste("red", (20, 20, 40, 40))
    image = alice.upload(file_of(drawn, kind, quality=100))

    new = made(alice.change(image, "remove-background"))

    found = alice.download(new)
    assert new["format"] == "png"
    assert corners(found) == ["-"] * 4
    assert colour_at(found, (30, 30)) == "r"


def test_a_background_that_is_not_flat_is_the_requests_fault(alice: Person, database: Database) -> None:
    image = alice.upload(file_of(Image.effect_noise((64, 64), 120).convert("RGB")))

    answers = [alice.change(image, "remove-background") for _ in range(2)]

    for answer in answers:
        assert "background" in problem(answer, 422)["message"]
    made_jobs = rows.query(database, "SELECT id FROM jobs WHERE operation = 'remove_background'")
    assert len(made_jobs) == 1


# What only the image can tell


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("crop", {"x1": 0, "y1": 0, "x2": 41, "y2": 20}, "x2"),
        ("crop", {"x1": 0, "y1": 0, "x2": 40, "y2": 21}, "y2"),
        ("crop", {"x1": 10, "y1": 0, "x2": 10, "y2": 20}, "x2"),
        ("crop", {"x1": 40, "y1": 0, "x2": 41, "y2": 20}, "x1"),
        ("resize", {"width": 9000, "height": 9000}, "width"),
        ("resize", {"width": 10000}, "width"),
    ],
)
def test_what_the_image_does_not_allow_is_named(
    kind: str, body: dict[str, Any], field: str, alice: Person, card: Any, database: Database
) -> None:
    told = problem(alice.change(card, kind, **body), 422)

    assert [error.partition(":")[0] for error in told["errors"]] == [field]
    assert len(rows.query(database, "SELECT id FROM jobs")) == 1


def test_a_jpeg_holds_no_transparent_letterbox_and_the_answer_says_what_to_do(alice: Person) -> None:
    photo = alice.upload(file_of(quarters(), "JPEG"))
    body = {"width": 40, "height": 40, "fit": "contain", "letterbox_color": "transparent"}

    told = problem(alice.change(photo, "resize", **body), 422)
    turned = problem(alice.change(photo, "rotate", angle=10, background_color="transparent"), 422)
    as_png = made(alice.change(photo, "convert", format="png"))

    assert "convert the image to png or webp first" in told["errors"][0]
    assert turned["errors"][0].startswith("background_color: ")
    assert corners(changed(alice, as_png, "resize", **body)) == ["-"] * 4
