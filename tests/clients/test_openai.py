"""The official `openai` client, unmodified, against a running Darkroom."""

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any, get_args

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import ImageModel, ImagesResponse
from PIL import Image

from app.db import Database, connect
from app.settings import Settings
from app.storage import open_store
from tests import rows
from tests.conftest import Account
from tests.factories import picture
from tests.openai_images import SMALL, jobs, mask_with_hole, noise, opened, png
from tests.serving import serving


@pytest.fixture(scope="module")
def address(base_settings: Settings) -> Iterator[str]:
    """One Darkroom for all tests that need it in no other way; each comes from an account of its own."""
    settings = base_settings.model_copy(update={"rate_limit_per_minute": 100_000})
    database = connect(settings, application_name="darkroom tests")
    with serving(settings, database, open_store(settings)) as url:
        yield url
    database.close()


@pytest.fixture
def client(address: str, account: Account) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{address}/v1", api_key=account.key) as made:
        yield made


# Generate


def test_an_image_comes_back_in_base64_with_its_seed_and_its_job(client: OpenAI, database: Database) -> None:
    answer = client.images.generate(model="gpt-image-1", prompt="a hill", size=SMALL, n=2)

    assert answer.data is not None
    assert [opened(answer, n).size for n in range(2)] == [(64, 48), (64, 48)]
    assert (answer.output_format, answer.size, answer.background) == ("png", SMALL, "opaque")
    assert answer.usage is None
    (job,) = rows.query(database, "SELECT id, finished_at, spec FROM jobs")
    extras = answer.model_extra
    assert extras is not None
    assert (extras["job_id"], extras["model"]) == (f"job_{job.id.hex}", "sketch")
    assert answer.created == int(job.finished_at.timestamp())
    assert [(image.model_extra or {})["seed"] for image in answer.data] == [
        job.spec["seed"],
        job.spec["seed"] + 1,
    ]


def test_an_image_asked_for_as_a_url_is_there(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a hill", size=SMALL, response_format="url")

    assert answer.data is not None
    assert answer.data[0].b64_json is None
    assert answer.data[0].url is not None
    fetched = httpx2.get(answer.data[0].url)
    assert fetched.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(fetched.content)).size == (64, 48)


def test_as_many_images_as_openai_allows_can_be_asked_for(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a hill", size="16x16", n=10)

    assert answer.data is not None
    assert len({image.b64_json for image in answer.data}) == 10


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_each_format_is_the_one_that_was_asked_for(client: OpenAI, name: Any, kind: str) -> None:
    answer = client.images.generate(prompt="a hill", size=SMALL, output_format=name)

    assert opened(answer).format == kind
    assert answer.output_format == name


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_less_quality_takes_less_space(client: OpenAI, name: Any) -> None:
    sizes = []
    for percent in (0, 100):
        answer = client.images.generate(
            prompt="a hill",
            size="256x256",
            output_format=name,
            output_compression=percent,
            extra_body={"seed": 5},
        )
        assert answer.data is not None
        sizes.append(len(answer.data[0].b64_json or ""))

    assert sizes[0] < sizes[1] / 2


def test_the_same_seed_draws_the_same_image_and_none_another(client: OpenAI, database: Database) -> None:
    seeded = [
        client.images.generate(prompt="a hill", size=SMALL, extra_body={"seed": 5}).data for _ in range(2)
    ]
    free = [client.images.generate(prompt="a hill", size=SMALL).data for _ in range(2)]

    assert seeded[0] is not None
    assert seeded[1] is not None
    assert seeded[0][0].b64_json == seeded[1][0].b64_json
    assert free[0] is not None
    assert free[1] is not None
    assert free[0][0].b64_json != free[1][0].b64_json
    assert jobs(database) == 4


def test_what_is_ours_in_the_extra_body_counts(client: OpenAI, database: Database) -> None:
    client.images.generate(
        prompt="a hill",
        size=SMALL,
        extra_body={"negative_prompt": "fog", "guidance_scale": 3, "num_inference_steps": 4, "seed": 9},
    )

    (job,) = rows.query(database, "SELECT spec FROM jobs")
    assert job.spec["negative_prompt"] == "fog"
    assert (job.spec["guidance_scale"], job.spec["num_inference_steps"], job.spec["seed"]) == (3.0, 4, 9)


def test_what_openai_means_for_itself_is_ignored(client: OpenAI) -> None:
    answer = client.images.generate(
        model="dall-e-3",
        prompt="a hill",
        size=SMALL,
        quality="hd",
        style="vivid",
        moderation="low",
        user="someone",
        safety_identifier="hash",
        background="auto",
    )

    assert opened(answer).size == (64, 48)


def test_a_stream_brings_each_finished_image(client: OpenAI) -> None:
    stream = client.images.generate(prompt="a hill", size=SMALL, n=2, stream=True, partial_images=2)
    events = list(stream)

    assert [event.type for event in events] == ["image_generation.completed"] * 2
    for event in events:
        assert Image.open(io.BytesIO(base64.b64decode(event.b64_json))).size == (64, 48)
    last = events[-1]
    assert last.type == "image_generation.completed"
    assert (last.size, last.output_format, last.usage.total_tokens) == (SMALL, "png", 0)


def test_the_asynchronous_client_is_served_too(client: OpenAI) -> None:
    async def ask() -> ImagesResponse:
        async with AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as made:
            return await made.images.generate(prompt="a hill", size=SMALL)

    assert opened(asyncio.run(ask())).size == (64, 48)


# Edit


@pytest.mark.parametrize("colour", ["black", "white"])
def test_an_edit_changes_what_is_transparent_in_the_mask_and_not_one_bit_else(
    client: OpenAI, colour: str
) -> None:
    image, mask = noise(), mask_with_hole(colour=colour)

    answer = client.images.edit(
        model="gpt-image-1",
        image=("photo.png", png(image), "image/png"),
        mask=("mask.png", png(mask), "image/png"),
        prompt="a red balloon",
    )

    drawn = opened(answer)
    hole = mask.getchannel("A").point(lambda alpha: 0 if alpha else 255)
    black = Image.new("RGB", image.size)
    assert drawn.mode == "RGB"
    assert Image.composite(black, drawn, hole).tobytes() == Image.composite(black, image, hole).tobytes()
    assert drawn.tobytes() != image.tobytes()


def test_a_mask_may_be_an_indexed_png_with_a_transparent_colour(client: OpenAI) -> None:
    image, mask = noise(), Image.new("P", (40, 30), 1)
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.paste(0, (10, 10, 20, 20))
    file = io.BytesIO()
    mask.save(file, "PNG", transparency=0)

    answer = client.images.edit(image=png(image), mask=file.getvalue(), prompt="a red balloon")

    drawn = opened(answer)
    box = (10, 10, 20, 20)
    assert drawn.crop(box).tobytes() != image.crop(box).tobytes()
    drawn.paste("black", box)
    image.paste("black", box)
    assert drawn.tobytes() == image.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_edit_without_a_mask_redraws_the_whole_image(
    client: OpenAI, database: Database, kind: str
) -> None:
    answer = client.images.edit(
        image=[("photo", picture(40, 30, kind=kind))],
        prompt="in winter",
        n=1,
        extra_body={"strength": 0.3, "seed": 4},
    )

    assert opened(answer).size == (40, 30)
    (job,) = rows.query(database, "SELECT operation, spec FROM jobs")
    assert (job.operation, job.spec["strength"], job.spec["seed"]) == ("image_to_image", 0.3, 4)


def test_an_edit_streams_too(client: OpenAI) -> None:
    stream = client.images.edit(image=png(noise()), prompt="in winter", stream=True)

    assert [event.type for event in stream] == ["image_edit.completed"]


@pytest.mark.parametrize(
    ("sent", "param", "says"),
    [
        ({"image": [png(noise()), png(noise())]}, "image", "only one image"),
        ({"image": b"just some text"}, "image", "send a PNG, JPEG or WEBP file"),
        ({"mask": png(noise())}, "mask", "has no transparency"),
        ({"mask": picture(40, 30, kind="JPEG")}, "mask", "send a PNG file"),
        ({"mask": png(mask_with_hole(20, 30))}, "mask", "both must have the same size"),
        ({"markup": png(mask_with_hole())}, "markup", "prompt"),
        ({"prompt": ""}, "prompt", "must not be empty"),
    ],
)
def test_an_edit_that_cannot_be_done_names_the_field(
    client: OpenAI, database: Database, sent: dict[str, Any], param: str, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(**{"image": png(noise()), "prompt": "in winter", **sent})

    assert refused.value.param == param
    assert says in refused.value.message
    assert jobs(database) == 0


# Models


def test_every_model_name_that_the_client_knows_is_listed_and_found(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    known = get_args(ImageModel)

    assert known
    assert {"sketch", *known} <= listed.keys()
    for name in known:
        assert client.models.retrieve(name) == listed[name]
        assert (listed[name].object, listed[name].owned_by) == ("model", "darkroom")
        assert (listed[name].model_extra or {})["root"] == "sketch"


# Errors


def test_a_wrong_key_is_an_authentication_error(client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        client.with_options(api_key="wrong").images.generate(prompt="a hill")

    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")
    assert refused.value.request_id


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.images.generate(model="skech", prompt="a hill")
    with pytest.raises(openai.NotFoundError) as not_listed:
        client.models.retrieve("skech")

    for error in (refused.value, not_listed.value):
        assert (error.code, error.param) == ("model_not_found", "model")
        assert "did you mean 'sketch'?" in error.message


@pytest.mark.parametrize(
    ("sent", "param", "code"),
    [
        ({"prompt": " "}, "prompt", "invalid_value"),
        ({"prompt": "x" * 10_001}, "prompt", "invalid_value"),
        ({"n": 11}, "n", "invalid_value"),
        ({"size": "big"}, "size", "invalid_value"),
        ({"size": "9000x9000"}, "size", "invalid_value"),
        ({"background": "transparent"}, "background", "invalid_value"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"extra_body": {"seed": -1}}, "seed", "invalid_value"),
        ({"extra_body": {"prompt": None}}, "prompt", "missing_required_parameter"),
    ],
)
def test_a_field_that_cannot_be_used_is_a_bad_request_that_names_it(
    client: OpenAI, database: Database, sent: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(**{"prompt": "a hill", **sent})

    error = refused.value
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    assert error.message.count(f"{param}: ") == 1
    assert error.request_id
    assert jobs(database) == 0


def test_the_retired_variations_say_what_to_send_instead(client: OpenAI) -> None:
    with (
        pytest.warns(DeprecationWarning, match="deprecated"),
        pytest.raises(openai.APIStatusError, match="POST /v1/images/edits") as refused,
    ):
        client.images.create_variation(image=picture())

    assert refused.value.status_code == 410


def test_every_answer_names_its_request(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a hill", size=SMALL)

    assert answer._request_id


def test_an_idempotency_key_of_the_clients_own_gives_the_same_images_again(
    client: OpenAI, database: Database
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first, second = (
        client.images.generate(prompt="a hill", size=SMALL, extra_headers=headers) for _ in range(2)
    )

    assert first.data == second.data
    assert jobs(database) == 1
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.images.generate(prompt="a lake", size=SMALL, extra_headers=headers)
    assert refused.value.code == "idempotency_mismatch"
