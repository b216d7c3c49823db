"""Each fake upstream in its own words: what a vendor answers a plain customer, and what it refuses."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.servers.receiver import receiving
from tests.upstreams import VENDORS, Mood, Upstream, moods, shows, upstream
from tests.upstreams.openai import STRICT
from tests.upstreams.pictures import encode
from tests.upstreams.plain import ENTERPRISE, PROMPT, SEED, Customer, opened
from tests.waiting import eventually

GREY = Image.new("RGB", (64, 48), (90, 90, 90))


@pytest.fixture(params=VENDORS)
def fake(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    with upstream(request.param) as made:
        yield made


@pytest.fixture
def customer(fake: Upstream) -> Customer:
    return Customer(fake)


only = {vendor: pytest.mark.parametrize("fake", [vendor], indirect=True) for vendor in VENDORS}


def left_half_white() -> Image.Image:
    mask = Image.new("L", GREY.size, 0)
    mask.paste(255, (0, 0, 32, 48))
    return mask


def right_half_is_grey_and_left_is_not(data: bytes) -> bool:
    pixels = np.asarray(opened(data).convert("RGB"))
    return bool((pixels[:, 32:] == 90).all() and not (pixels[:, :32] == 90).all(axis=2).any())


# --- ModelsLab ----------------------------------------------------------------------------------------------


@only["modelslab"]
def test_modelslab_answers_at_once_or_queues_and_is_polled(fake: Upstream, customer: Customer) -> None:
    done = customer.order(samples="2").json()
    queued = customer.order(instant_response=True)
    pending = queued.json()
    polled = customer.look(queued).json()

    assert (done["status"], len(done["output"]), done["meta"]["seed"]) == ("success", 2, SEED)
    assert isinstance(done["id"], int)
    assert done["meta"]["id"] == str(done["id"])
    assert (pending["status"], pending["output"]) == ("processing", [])
    assert isinstance(pending["eta"], int)
    assert pending["fetch_result"] == f"{fake.base_url}{ENTERPRISE}/fetch/{pending['id']}"
    assert polled == {"status": "success", "id": pending["id"], "output": pending["future_links"]}
    assert customer.post(f"{ENTERPRISE}/fetch", json={"key": fake.key, "request_id": pending["id"]}).ok


@only["modelslab"]
@pytest.mark.parametrize("how", ["url", "data", "base64"])
def test_modelslab_changes_only_where_the_mask_is_white(fake: Upstream, customer: Customer, how: str) -> None:
    sent = [encode(GREY, "png"), encode(left_half_white(), "png")]
    texts = [base64.b64encode(data).decode() for data in sent]
    if how == "data":
        texts = [f"data:image/png;base64,{text}" for text in texts]
    if how == "url":
        path = "/api/v6/base64_to_url"
        texts = [
            customer.post(path, json={"key": fake.key, "base64_string": text}).json()["output"][0]
            for text in texts
        ]

    order = customer.order(
        "/api/v6/realtime/inpaint", init_image=texts[0], mask_image=texts[1], strength=1, seed=None
    )

    assert fake.charged[0].operation == "inpaint"
    assert right_half_is_grey_and_left_is_not(customer.fetch(order)[0][0])


@only["modelslab"]
def test_modelslab_blends_by_strength(customer: Customer) -> None:
    text = base64.b64encode(encode(GREY, "png")).decode()

    kept = customer.order(f"{ENTERPRISE}/img2img", init_image=text, strength=0)
    lost = customer.order(f"{ENTERPRISE}/img2img", init_image=text, strength="1.0")

    assert opened(customer.fetch(kept)[0][0]).getcolors() == [(64 * 48, (90, 90, 90))]
    assert shows(opened(customer.fetch(lost)[0][0]), PROMPT, seed=SEED)


@only["modelslab"]
@pytest.mark.parametrize(
    ("path", "members", "says"),
    [
        ("text2img", {"samples": 5}, "samples must be between 1 and 4"),
        ("text2img", {"width": "2000"}, "width must be between 1 and 1024"),
        ("img2img", {}, "The init image field is required."),
        ("img2img", {"init_image": "http://127.0.0.1:9/none.png"}, "Unable to fetch image from provided URL"),
        ("img2img", {"init_image": "http://example.org/a.png"}, "Unable to fetch image from provided URL"),
        ("img2img", {"init_image": "%%%"}, "Unable to fetch image from provided URL"),
    ],
)
def test_modelslab_refuses_in_its_own_words(
    fake: Upstream, customer: Customer, path: str, members: dict[str, Any], says: str
) -> None:
    answer = customer.order(f"{ENTERPRISE}/{path}", **members)

    assert (answer.status_code, answer.json()) == (400, {"status": "error", "message": says})
    assert fake.charged == []


@only["modelslab"]
def test_modelslab_gives_base64_as_links_to_texts(customer: Customer) -> None:
    order = customer.order(base64=True)

    ((text, content_type),) = customer.fetch(order)
    assert order.json()["output"][0].endswith("-0.base64")
    assert content_type == "text/plain"
    assert shows(opened(base64.b64decode(text, validate=True)), PROMPT, seed=SEED)


@only["modelslab"]
def test_modelslab_has_a_queue_limit_and_takes_urls_alone_when_told_to(
    fake: Upstream, customer: Customer
) -> None:
    fake.queue_limit, fake.inline_images = 1, False
    fake.script(moods.STUCK)
    customer.order()

    refused = customer.order()
    fake.finish_all()
    inline = customer.order(
        f"{ENTERPRISE}/img2img", init_image=base64.b64encode(encode(GREY, "png")).decode()
    )

    assert refused.status_code == 429
    assert refused.json()["retry_after"] == 30
    assert "Retry-After" not in refused.headers
    assert inline.status_code == 400
    assert len(fake.charged) == 1


@only["modelslab"]
@pytest.mark.parametrize(("mood", "times"), [(None, 1), (moods.CALLED_TWICE, 2)], ids=["once", "twice"])
def test_modelslab_calls_back(fake: Upstream, customer: Customer, mood: Mood | None, times: int) -> None:
    with receiving() as receiver:
        fake.script(*[mood] if mood else [])
        order = customer.order(webhook=receiver.url(), track_id="t1")

        eventually(lambda: len(receiver.at()) == times, within=5)
        body = json.loads(receiver.at()[-1].body)
    assert (body["status"], body["id"], body["track_id"]) == ("success", order.json()["id"], "t1")
    assert body["output"] == order.json()["output"]


@only["modelslab"]
def test_modelslab_is_well_and_deletes(fake: Upstream, customer: Customer) -> None:
    id_ = customer.order().json()["id"]

    assert customer.post(f"{ENTERPRISE}/system_details", json={"key": fake.key}).json()["status"] == "ok"
    answer = customer.post("/api/v3/delete_image", json={"key": fake.key, "request_id": id_, "type": "image"})

    assert answer.json() == {"status": "success", "messege": "image deleted"}
    assert fake.deleted == [str(id_)]


# --- IMG Processing -----------------------------------------------------------------------------------------


@only["imgprocessing"]
def test_imgprocessing_answers_an_image_object_with_201(customer: Customer) -> None:
    answer = customer.order()

    image = answer.json()
    assert (answer.status_code, answer.headers["X-Image-Processing-Usage"]) == (201, "1")
    assert (image["name"], image["width"], image["height"], image["format"]) == ("one", 1024, 1024, "jpeg")
    assert len(image["id"]) == len("image_") + 24
    assert image["url"] is None
    assert image["created_at"].endswith("Z")
    assert customer.look(answer).json() == image
    assert customer.fetch(answer)[0][1] == "image/jpeg"


@only["imgprocessing"]
def test_imgprocessing_lists_newest_first_from_a_cursor_that_is_included(customer: Customer) -> None:
    names = ["a", "b", "c"]
    ids = {name: customer.order(name=name).json()["id"] for name in names}

    first = customer.get("/v1/images", params={"take": 2}).json()
    second = customer.get(first["links"]["next"]).json()

    assert [image["name"] for image in first["data"]] == ["c", "b"]
    assert first["links"]["previous"] is None
    assert [image["id"] for image in second["data"]] == [ids["a"]]
    assert second["links"]["next"] is None
    assert customer.get(second["links"]["previous"]).json() == first
    assert customer.get("/v1/images", params={"take": 101}).status_code == 400


@only["imgprocessing"]
def test_imgprocessing_publishes_uploads_and_deletes(fake: Upstream, customer: Customer) -> None:
    order = customer.order().json()

    public = customer.post(f"/v1/images/{order['id']}/publish")
    uploaded = customer.post(
        "/v1/images/upload",
        data={"name": "mine"},
        files={"image": ("a.png", encode(GREY, "png"), "image/png")},
    )

    assert public.status_code == uploaded.status_code == 201
    assert requests.get(public.json()["url"], timeout=5).headers["Content-Type"] == "image/jpeg"
    assert (uploaded.json()["width"], uploaded.json()["format"]) == (64, "png")
    path = f"{fake.base_url}/v1/images/{order['id']}"
    assert requests.delete(path, headers={"x-api-key": fake.key}, timeout=5).status_code == 204
    gone = customer.get(path)
    assert (gone.status_code, gone.json()["error"]) == (404, "Not Found")
    assert fake.deleted == [order["id"]]


@only["imgprocessing"]
@pytest.mark.parametrize(
    "members",
    [
        {"name": "x" * 31},
        {"name": None},
        {"prompt": "x" * 1001},
        {"seed": -1},
        {"seed": "7"},
        {"model": "sd"},
    ],
)
def test_imgprocessing_refuses_in_its_own_words(
    fake: Upstream, customer: Customer, members: dict[str, Any]
) -> None:
    answer = customer.order(**members)

    body = answer.json()
    assert (answer.status_code, body["status"], body["error"]) == (400, 400, "Bad Request")
    assert next(iter(members)) in body["message"]
    assert fake.charged == []


# --- Realm --------------------------------------------------------------------------------------------------


@only["realm"]
def test_realm_accepts_with_202_and_tells_results_and_rate_limits(customer: Customer) -> None:
    accepted = customer.order(numOutputs=2, width=None, height=None)
    polled = customer.look(accepted)

    assert (accepted.status_code, accepted.json()["status"]) == (202, "queued")
    assert polled.json()["status"] == "completed"
    assert len(polled.json()["results"]) == 2
    assert all(
        {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= it.headers.keys()
        for it in (accepted, polled)
    )
    seed = polled.json()["results"][0]["seed"]
    images = [opened(data) for data, _ in customer.fetch(accepted)]
    assert [shows(image, PROMPT, seed=seed, index=index) for index, image in enumerate(images)] == [
        True,
        True,
    ]
    assert images[0].size == (96, 64)  # the model's own


@only["realm"]
def test_realm_changes_only_where_the_mask_is_white(fake: Upstream, customer: Customer) -> None:
    accepted = customer.post(
        "/v1/images/modify",
        data={"modelId": "mod_portrait", "prompt": PROMPT, "strength": "1.0", "numOutputs": "1"},
        files={
            "image": ("a.png", encode(GREY, "png"), "image/png"),
            "mask": ("m.png", encode(left_half_white(), "png"), "image/png"),
        },
    )

    assert accepted.status_code == 202
    assert fake.submits[0].body["mask"].content_type == "image/png"
    assert right_half_is_grey_and_left_is_not(customer.fetch(accepted)[0][0])


@only["realm"]
@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"modelId": None}, 400, "INVALID_REQUEST"),
        ({"modelId": "mod_none"}, 404, "MODEL_NOT_FOUND"),
        ({"numOutputs": 5}, 400, "INVALID_REQUEST"),
        ({"width": "64"}, 400, "INVALID_REQUEST"),
    ],
)
def test_realm_refuses_in_its_own_words(
    fake: Upstream, customer: Customer, members: dict[str, Any], status: int, code: str
) -> None:
    answer = customer.order(**members)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "X-RateLimit-Reset" in answer.headers
    assert fake.charged == []


@only["realm"]
def test_realm_lists_its_models_and_takes_no_webp(customer: Customer) -> None:
    webp = {"image": ("a.webp", encode(GREY, "webp"), "image/webp")}

    listed = customer.get("/v1/models").json()["data"]
    refused = customer.post("/v1/images/modify", data={"modelId": "mod_portrait", "prompt": "x"}, files=webp)

    assert [model["modelId"] for model in listed] == ["mod_landscape", "mod_portrait"]
    assert refused.status_code == 415


# --- OpenAI -------------------------------------------------------------------------------------------------


@only["openai"]
def test_openai_gives_urls_or_base64(customer: Customer) -> None:
    linked = customer.order(n=2)
    inline = customer.order(response_format="b64_json", output_format="jpeg")
    strict = customer.order(model=STRICT, seed=None, size="64x48")

    assert len(linked.json()["data"]) == 2
    assert shows(opened(customer.fetch(linked)[1][0]), PROMPT, seed=SEED, index=1)
    assert opened(customer.fetch(inline)[0][0]).format == "JPEG"
    assert opened(customer.fetch(strict)[0][0]).size == (64, 48)
    assert strict.json()["usage"]["total_tokens"]
    assert "x-request-id" in strict.headers


@only["openai"]
@pytest.mark.parametrize("part", ["image", "image[]"])
def test_openai_changes_only_where_the_mask_is_transparent(
    fake: Upstream, customer: Customer, part: str
) -> None:
    mask = GREY.convert("RGBA")
    mask.putalpha(left_half_white().point(lambda white: 255 - white))

    edited = customer.post(
        "/v1/images/edits",
        data={"model": STRICT, "prompt": PROMPT, "n": "1"},
        files=[
            (part, ("a.png", encode(GREY, "png"), "image/png")),
            ("mask", ("m.png", encode(mask, "png"), "image/png")),
        ],
    )

    assert fake.charged[0].operation == "inpaint"
    assert right_half_is_grey_and_left_is_not(customer.fetch(edited)[0][0])


@only["openai"]
@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"model": "dall-e-9"}, 404, "model_not_found"),
        ({"n": 11}, 400, "invalid_value"),
        ({"size": "big"}, 400, "invalid_value"),
        ({"model": STRICT, "seed": None, "size": "65x48"}, 400, "invalid_value"),
        ({"model": STRICT}, 400, "unknown_parameter"),
        ({"model": STRICT, "seed": None, "response_format": "url"}, 400, "unknown_parameter"),
        ({"prompt": "x" * 32_001}, 400, "string_above_max_length"),
    ],
)
def test_openai_refuses_in_its_own_words(
    fake: Upstream, customer: Customer, members: dict[str, Any], status: int, code: str
) -> None:
    answer = customer.order(**members)

    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert fake.charged == []
