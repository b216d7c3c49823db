"""The ModelsLab dialect on real servers with a worker: what is asked for, drawn and shown."""

from collections.abc import Iterator
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import web
from app.db import Database
from app.domain.spec import JobSpec
from app.errors import ProviderRefused
from app.settings import Settings
from app.storage import Storage
from tests import realtime, rows
from tests.conftest import Account
from tests.drawing import drawing
from tests.factories import picture
from tests.realtime import (
    ENTERPRISE,
    IMAGES,
    PHOTO,
    PREFIXES,
    REALTIME,
    House,
    Make,
    body,
    image_of,
    pixels,
    refused,
    text_of,
)
from tests.servers import strangers
from workers.providers.base import Provider


@pytest.fixture
def make(settings: Settings, database: Database, storage: Storage, account: Account) -> Iterator[Make]:
    with realtime.houses(settings, database, storage, account) as made:
        yield made


@pytest.fixture(scope="module")
def app(base_settings: Settings) -> Iterator[tuple[Flask, Settings]]:
    """One application for the tests that change no setting; each comes from an account of its own."""
    settings = base_settings.model_copy(
        update={"rate_limit_per_minute": 100_000, "lease": timedelta(seconds=2)}
    )
    flask = web.create_app(settings)
    yield flask, settings
    web.close(flask)


@pytest.fixture
def house(
    app: tuple[Flask, Settings], database: Database, storage: Storage, account: Account
) -> Iterator[House]:
    """With a worker that draws at once."""
    flask, settings = app
    with drawing(settings, database, storage):
        yield House(flask, flask.test_client(), settings, database, storage, account)


@pytest.fixture
def models_file(tmp_path: Path) -> Path:
    """A catalogue of the built-in model and of a second one, which can do less."""
    file = tmp_path / "models.yaml"
    file.write_text(
        (resources.files("app.domain") / "models.yaml").read_text()
        + """
  - id: second
    name: Second
    created_at: 2026-11-21T00:00:00Z
    operations: [text_to_image, image_to_image]
    width: 64
    height: 64
    size: {min: 16, max: 2048, multiple: 1, max_pixels: 4194304}
    max_images: 3
    defaults: {num_inference_steps: 2, guidance_scale: 1.0, strength: 0.5}
    targets:
      - {provider: sketch, model: sketch, queue: cpu}
"""
    )
    return file


def spec_of(house: House, answer: dict[str, Any]) -> JobSpec:
    return JobSpec.model_validate(house.job(answer["id"]).spec)


def drawn(house: House, answer: dict[str, Any], index: int = 0) -> bytes:
    got = house.get(answer["output"][index])
    assert (got.status_code, got.content_type) == (200, "image/png")
    return bytes(got.data)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("verb", ["text2img", "img2img", "inpaint"])
def test_each_operation_at_each_address_answers_with_the_images(verb: str, prefix: str, house: House) -> None:
    answer = house.generate(verb, prefix, samples="2")

    assert answer["status"] == "success"
    assert type(answer["id"]) is int
    assert type(answer["generationTime"]) is float
    assert len(answer["output"]) == 2
    for index, url in enumerate(answer["output"]):
        assert url == f"http://localhost/outputs/{answer['meta']['file_prefix']}-{index}.png"
        assert image_of(drawn(house, answer, index)).size == (64, 48)
    assert answer["meta"]["id"] == str(answer["id"])
    assert answer.get("proxy_links") == (None if prefix == ENTERPRISE else answer["output"])


def test_strings_yes_and_no_and_nulls_mean_what_they_say(house: House) -> None:
    answer = house.generate(
        "img2img",
        width=" 80 ",
        height="48.0",
        samples="2",
        strength="0.25",
        guidance_scale="3",
        num_inference_steps="4",
        seed="7",
        base64="no",
        temp="0",
        enhance_prompt="yes",
        enhance_style=None,
        negative_prompt="fog",
        track_id=None,
        webhook="",
        scheduler="EulerDiscreteScheduler",
        lora_model=["x"],
    )

    spec = spec_of(house, answer)
    assert (spec.width, spec.height, spec.num_images, spec.seed) == (80, 48, 2, 7)
    assert (spec.strength, spec.guidance_scale, spec.num_inference_steps) == (0.25, 3.0, 4)
    assert spec.negative_prompt == "fog"
    assert answer["meta"] | {"strength": 0.25, "guidance_scale": 3.0, "steps": 4} == answer["meta"]
    assert (answer["meta"]["enhance_prompt"], answer["meta"]["base64"], answer["meta"]["temp"]) == (
        "yes",
        "no",
        "no",
    )


def test_what_is_left_out_is_512_pixels_one_image_and_the_models_own(house: House) -> None:
    sent = {"prompt": "a hill", "init_image": PHOTO, "mask_image": PHOTO, "instant_response": True}

    for verb in ("text2img", "inpaint"):
        spec = spec_of(house, house.answer(ENTERPRISE + verb, **sent))
        assert (spec.width, spec.height, spec.num_images) == (512, 512, 1)
        assert (spec.num_inference_steps, spec.guidance_scale) == (12, 7.5)


@pytest.mark.parametrize(
    ("image", "asked", "given"),
    [
        ((96, 64), {}, (96, 64)),
        ((2000, 1000), {}, (1024, 512)),
        ((8, 8), {}, (16, 16)),
        ((96, 64), {"width": "64"}, (64, 512)),
        ((96, 64), {"width": None, "height": ""}, (96, 64)),
    ],
)
def test_img2img_without_a_size_keeps_the_images_as_far_as_it_can(
    image: tuple[int, int], asked: dict[str, Any], given: tuple[int, int], make: Make
) -> None:
    house = make(draws=False, sync_wait=realtime.AT_ONCE)
    sent = {"prompt": "a hill", "init_image": text_of(picture(*image)), **asked}

    answer = house.answer(ENTERPRISE + "img2img", **sent)

    assert (answer["meta"]["width"], answer["meta"]["height"]) == given
    assert (answer["meta"]["W"], answer["meta"]["H"]) == given


def test_the_seed_that_is_shown_draws_the_same_image_again(house: House) -> None:
    first = house.generate(seed=None)
    again = house.generate(seed=first["meta"]["seed"])
    other = house.generate(seed=first["meta"]["seed"] + 1)

    assert drawn(house, first) == drawn(house, again) != drawn(house, other)


def test_white_areas_of_the_mask_change_and_black_ones_do_not(house: House) -> None:
    image, mask = picture(64, 48), image_of(picture(64, 48, mode="L"))
    mask.paste(0, (0, 0, 32, 48))
    mask.paste(255, (32, 0, 64, 48))
    file = realtime.saved(mask)

    answer = house.generate("inpaint", init_image=text_of(image), mask_image=text_of(file), strength=1)

    before, after = pixels(image), pixels(drawn(house, answer))
    assert (before[:, :32] == after[:, :32]).all()
    assert (before[:, 32:] != after[:, 32:]).any(axis=2).mean() > 0.5


def test_an_image_may_come_as_a_url_a_data_uri_base64_or_an_output_of_ours(make: Make) -> None:
    house = make(fetch_allow=(strangers.HERE,))
    data = picture(40, 32, kind="JPEG")
    ours = house.generate()["output"][0]
    with strangers.stranger(strangers.answers(data, "Content-Type: image/jpeg")) as host:
        for sent, size, told in (
            (f"{host.url}/a.jpg", (40, 32), f"{host.url}/a.jpg"),
            (f"data:image/jpeg;base64,{text_of(data)}", (40, 32), None),
            (text_of(data), (40, 32), None),
            (ours, (64, 48), ours),
        ):
            answer = house.answer(ENTERPRISE + "img2img", prompt="a hill", init_image=sent)
            assert answer["status"] == "success"
            assert (answer["meta"]["width"], answer["meta"]["height"]) == size
            assert answer["meta"]["init_image"] == told


def test_a_url_that_cannot_be_fetched_is_told_and_leaves_nothing(make: Make) -> None:
    house = make(fetch_allow=(strangers.HERE,))
    with strangers.stranger(strangers.answers(b"no", status="404 Not Found")) as host:
        for url, told in (
            (host.url, "init_image: The URL answers with HTTP status 404."),
            ("http://10.0.0.1/a.png", "init_image: This URL's host has no address that may be used;"),
            ("http://[::1", "init_image: The URL's host or port is malformed."),
        ):
            answer = house.post(ENTERPRISE + "img2img", **body("img2img", init_image=url))
            (sentence,) = refused(answer, 400)["init_image"]
            assert sentence.startswith(told)
    assert rows.query(house.database, "SELECT id FROM jobs") == []


# Words around the prompt


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("verb", ["text2img", "img2img", "inpaint"])
def test_prompts_are_enhanced_unasked_where_that_page_says_so(verb: str, prefix: str, make: Make) -> None:
    house = make(draws=False, sync_wait=realtime.AT_ONCE)
    expected = "yes" if prefix == ENTERPRISE and verb != "img2img" else "no"

    unasked = house.generate(verb, prefix)["meta"]
    refusing = house.generate(verb, prefix, enhance_prompt="no")["meta"]
    asking = house.generate(verb, prefix, enhance_prompt="true")["meta"]

    assert unasked["enhance_prompt"] == expected
    assert refusing["prompt"] == "a cat sitting on a bench"
    assert asking["prompt"].startswith("a cat sitting on a bench, ")
    assert unasked["prompt"] == (asking if expected == "yes" else refusing)["prompt"]


def test_a_style_is_shown_in_the_prompt_that_is_drawn(house: House) -> None:
    answer = house.generate("img2img", enhance_style="Watercolor", negative_prompt="bad quality")

    spec = spec_of(house, answer)
    assert "a cat sitting on a bench" in spec.prompt != "a cat sitting on a bench"
    assert spec.negative_prompt.startswith("bad quality, ")
    assert answer["meta"]["prompt"] == spec.prompt
    assert answer["meta"]["negative_prompt"] == spec.negative_prompt
    assert answer["meta"]["enhance_style"] == "Watercolor"


def test_adult_styles_are_refused_unless_the_operator_enables_them(make: Make) -> None:
    told = refused(make().post(ENTERPRISE + "img2img", **body("img2img", enhance_style="nsfw")), 400)
    allowed = make(adult_styles=True).generate("img2img", enhance_style="nsfw")

    assert told["enhance_style"][0].startswith("enhance_style: the style 'nsfw' is for adult content")
    assert allowed["status"] == "success"


def test_an_unknown_style_names_the_nearest(house: House) -> None:
    told = refused(house.post(ENTERPRISE + "img2img", **body("img2img", enhance_style="watercolour")), 400)

    assert told == {
        "enhance_style": ["enhance_style: there is no style 'watercolour'; did you mean 'watercolor'?"]
    }


# The safety checker


@pytest.mark.parametrize("sent", [True, "yes", "true", 1])
def test_without_a_checker_nothing_is_called_checked_though_it_was_asked_for(
    sent: object, house: House
) -> None:
    answer = house.generate(safety_checker=sent)
    fetched = house.answer(f"{ENTERPRISE}fetch/{answer['id']}")

    for each in (answer, fetched):
        assert "No safety checker is configured" in each["tip"]
        assert "nsfw_content_detected" not in each
    assert answer["meta"]["safety_checker"] == "no"


def test_without_a_checker_nobody_who_asked_for_none_is_told_of_it(house: House) -> None:
    for members in ({}, {"safety_checker": False}, {"safety_checker": "no"}, {"safety_checker": "none"}):
        answer = house.generate(**members)
        assert "tip" not in answer
        assert answer["meta"]["safety_checker"] == "no"


FLAGS = strangers.answers(b'{"flagged": true}', "Content-Type: application/json")
PASSES = strangers.answers(b'{"flagged": false}', "Content-Type: application/json")


def test_a_flagged_image_is_replaced_by_a_blank_one_and_told(make: Make) -> None:
    with strangers.stranger(FLAGS) as checker:
        house = make(safety_url=checker.url)
        answer = house.generate(safety_checker=True)
        fetched = house.answer(f"{REALTIME}fetch/{answer['id']}")

    assert answer["nsfw_content_detected"] is fetched["nsfw_content_detected"] is True
    assert (answer["meta"]["safety_checker"], answer["meta"]["safety_checker_type"]) == ("yes", "black")
    assert not pixels(drawn(house, answer)).any()
    assert "tip" not in answer


def test_a_checker_looks_unasked_only_at_the_enterprise_address(make: Make) -> None:
    with strangers.stranger(PASSES) as checker:
        house = make(safety_url=checker.url)
        answers = {prefix: house.generate(prefix=prefix) for prefix in PREFIXES}
        declined = house.generate(safety_checker="no")
        waiting = house.generate(instant_response=True)

    assert answers[ENTERPRISE]["nsfw_content_detected"] is False
    assert answers[ENTERPRISE]["meta"]["safety_checker"] == "yes"
    assert waiting["meta"]["safety_checker"] == "yes"
    for answer in (answers[REALTIME], answers[IMAGES], declined):
        assert "nsfw_content_detected" not in answer
        assert answer["meta"]["safety_checker"] == "no"
    assert answers[IMAGES]["meta"]["safety_checker_type"] == "sensitive_content_text"


# Which model


def test_the_model_is_the_operators_choice_except_where_the_contract_has_a_field_for_it(
    make: Make, models_file: Any
) -> None:
    house = make(models_file=models_file, modelslab_model="second", draws=False, sync_wait=realtime.AT_ONCE)

    def model_of(prefix: str, **members: Any) -> Any:
        return house.generate(prefix=prefix, **members)["meta"]["model"]

    assert [model_of(prefix) for prefix in PREFIXES] == ["second"] * 3
    assert model_of(IMAGES, model_id="sketch") == "sketch"
    assert model_of(IMAGES, model_id="") == "second"
    assert [model_of(prefix, model_id="sketch") for prefix in (ENTERPRISE, REALTIME)] == ["second"] * 2


def test_an_unknown_model_is_told_in_that_apis_words(house: House) -> None:
    answer = house.post(IMAGES + "text2img", **body(model_id="midjourney"))

    assert refused(answer, 400)[""][0].startswith("Model not found: midjourney. ")
    assert answer.get_json()["messege"] == answer.get_json()["message"]


def test_what_the_model_cannot_do_is_told_under_the_fields_own_names(make: Make, models_file: Any) -> None:
    house = make(models_file=models_file)

    small = house.post(IMAGES + "text2img", **body(width=15, height=8))
    unable = house.post(IMAGES + "inpaint", **body("inpaint", model_id="second"))
    many = house.post(IMAGES + "text2img", **body(samples=4, model_id="second"))

    assert refused(small, 400) == {
        "width": ["The width field must be between 16 and 2048 pixels, not 15."],
        "height": ["The height field must be between 16 and 2048 pixels, not 8."],
    }
    assert refused(unable, 400) == {
        "model_id": ["model_id: second does image_to_image, text_to_image, not inpaint."]
    }
    assert refused(many, 400) == {"samples": ["The samples field must be at most 3 for second, not 4."]}


# When it does not go well


def refusing(_: str) -> Provider:
    class Refuses:
        name = "refuses"

        def generate(self, *_: object) -> Any:
            raise ProviderRefused("The provider does not draw cats.")

        def warm_models(self) -> list[str]:
            return []

    return Refuses()


def test_a_failed_generation_is_200_with_status_error_and_no_id(
    make: Make, settings: Settings, database: Database, storage: Storage
) -> None:
    house = make(draws=False)
    with drawing(settings, database, storage, provider=refusing):
        answer = house.generate()
        (job,) = rows.query(database, "SELECT number FROM jobs")
        fetched = house.answer(f"{IMAGES}fetch/{job.number}")

    told = {"status": "error", "message": "The provider does not draw cats.", "code": "provider_refused"}
    assert answer == told
    assert fetched == {**told, "messege": told["message"]}
