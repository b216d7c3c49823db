"""What every adapter for an upstream provider promises while its vendor behaves, and when we change our mind.

It is what workers/providers/base.py promises of any provider, as far as a vendor lets it, and that what is
asked for arrives. Through the real provider, on a real database. What comes of a vendor that misbehaves is in
test_upstream_moods.py.
"""

import base64
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from app.db import Database
from app.domain.capabilities import CAPABILITIES
from app.domain.spec import MAX_SEED, Operation
from app.errors import CancelRequested, ProviderError, ProviderRefused
from app.settings import Settings
from tests import upstreams
from tests.upstreams import Call, Upload, moods, shows
from tests.upstreams.desk import COST, SIZES, Desk, open_desk
from tests.upstreams.plain import Customer
from workers.providers.base import Inputs

PROMPT = "a red hill under stars"
SEEDED = frozenset({"modelslab", "imgprocessing"})
"""Vendors that take a seed."""
TELLS_ITS_SEED = frozenset({*SEEDED, "realm"})


@pytest.fixture(params=upstreams.VENDORS)
def desk(request: pytest.FixtureRequest, database: Database, settings: Settings) -> Iterator[Desk]:
    with upstreams.upstream(request.param) as fake:
        yield open_desk(fake, database, settings)


@pytest.fixture
def changing(desk: Desk) -> Desk:
    if desk.vendor == "imgprocessing":
        pytest.skip("this vendor draws from text only")
    return desk


def photo(desk: Desk) -> Image.Image:
    width, height = SIZES[desk.vendor]
    grain = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(grain)


def hole(desk: Desk) -> Image.Image:
    """A mask whose left third is to change, and one pixel at the right."""
    width, height = SIZES[desk.vendor]
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (0, 0, width // 3, height))
    mask.putpixel((width - 2, height - 2), 255)
    return mask


def arrived(call: Call, name: str) -> Image.Image:
    """Give an input image as the vendor got it."""
    member = {"image": "init_image", "mask": "mask_image"}[name] if "key" in call.body else name
    found = call.body[member]
    data = found.data if isinstance(found, Upload) else base64.b64decode(found.partition(",")[2])
    return Image.open(io.BytesIO(data))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), np.int16)


def test_a_picture_is_what_was_asked_for_is_paid_once_and_written_down(desk: Desk) -> None:
    (picture,) = desk.draw(desk.spec(prompt=PROMPT))

    assert (picture.image.mode, picture.image.size) == ("RGB", SIZES[desk.vendor])
    assert picture.notes == {"engine": "vendor", "model": desk.model}
    (charge,) = desk.fake.charged
    assert shows(picture.image, PROMPT, seed=charge.seed)
    if desk.vendor in SEEDED:
        assert charge.seed == 5
    if desk.vendor in TELLS_ITS_SEED:
        assert picture.seed == charge.seed
    (call,) = desk.calls()
    assert (call.state, call.attempt, str(call.cost), call.error) == ("completed", 1, COST, None)
    assert call.upstream_id == (None if desk.vendor == "openai" else charge.id)
    assert not desk.fake.trespasses


def test_our_word_for_a_call_is_sent_along_where_the_vendor_takes_one(desk: Desk) -> None:
    desk.draw()

    (call,), (submit,) = desk.calls(), desk.fake.submits
    assert len(call.reference) <= 30
    sent: dict[str, Callable[[], Any]] = {
        "modelslab": lambda: submit.body["track_id"],
        "imgprocessing": lambda: submit.body["name"],
        "realm": lambda: submit.headers["idempotency-key"],
        "openai": lambda: submit.headers["idempotency-key"],
    }
    assert sent[desk.vendor]() == call.reference


def test_what_is_said_arrives_and_what_is_empty_is_left_out(desk: Desk) -> None:
    desk.draw(desk.spec(prompt=PROMPT))
    desk.job_id = uuid4()
    desk.draw(desk.spec(prompt=PROMPT, negative_prompt="fog"))

    without, saying = (submit.body for submit in desk.fake.submits)
    name = "negativePrompt" if desk.vendor == "realm" else "negative_prompt"
    is_taken = "negative_prompt" in CAPABILITIES[desk.vendor].honours
    assert without.get(name) is None
    assert (saying["prompt"], saying.get(name)) == (PROMPT, "fog" if is_taken else None)
    assert any("negative_prompt" in warning for warning in desk.warnings) == (not is_taken)


def test_several_pictures_come_in_order_and_in_as_few_calls_as_the_vendor_makes_of_them(desk: Desk) -> None:
    pictures = desk.draw(desk.spec(num_images=3, seed=MAX_SEED))

    per_call = CAPABILITIES[desk.vendor].images_per_call
    charges = desk.fake.charged
    assert [charge.images for charge in charges] == [min(per_call, 3)] * (3 if per_call == 1 else 1)
    if desk.vendor in SEEDED:
        assert [picture.seed for picture in pictures] == [MAX_SEED, 0, 1]
    for index, picture in enumerate(pictures):
        call, nth = divmod(index, per_call)
        assert shows(picture.image, charges[call].prompt, seed=charges[call].seed, index=nth)
    assert [(call.first_index, call.images) for call in desk.calls()] == [
        (index * per_call, charge.images) for index, charge in enumerate(charges)
    ]
    assert desk.progress == sorted(desk.progress)
    assert desk.progress[-1] == 1


def test_more_pictures_than_a_call_makes_are_several_calls(database: Database, settings: Settings) -> None:
    with upstreams.upstream("realm") as fake:
        desk = open_desk(fake, database, settings)
        assert len(desk.draw(desk.spec(num_images=6))) == 6
        assert [charge.images for charge in fake.charged] == [4, 2]
        first, second = (submit.headers["idempotency-key"] for submit in fake.submits)
        assert first != second


def test_an_image_to_change_arrives_as_it_is_and_is_left_as_it_was(changing: Desk) -> None:
    given = photo(changing)
    inputs = Inputs(image=given.copy())
    (picture,) = changing.draw(changing.spec(Operation.IMAGE_TO_IMAGE, strength=0.25), inputs=inputs)

    (charge,), (submit,) = changing.fake.charged, changing.fake.submits
    assert charge.operation == Operation.IMAGE_TO_IMAGE
    assert np.array_equal(pixels(arrived(submit, "image")), pixels(given))
    assert inputs.image is not None
    assert inputs.image.tobytes() == given.tobytes()
    drawing = upstreams.draw(charge.prompt, seed=charge.seed, width=given.width, height=given.height)
    weight = 0.25 if "strength" in CAPABILITIES[changing.vendor].honours else 1.0
    expected = pixels(given) * (1 - weight) + pixels(drawing) * weight
    assert np.abs(pixels(picture.image) - expected).max() <= 2


def test_only_what_the_mask_opens_changes_and_not_a_pixel_beside_it(changing: Desk) -> None:
    given, mask = photo(changing), hole(changing)
    inputs = Inputs(image=given.copy(), mask_image=mask.copy())
    (picture,) = changing.draw(changing.spec(Operation.INPAINT, strength=1.0), inputs=inputs)

    (charge,), (submit,) = changing.fake.charged, changing.fake.submits
    assert charge.operation == Operation.INPAINT
    sent = arrived(submit, "mask")
    opens = sent.getchannel("A").point(lambda alpha: 255 - alpha) if "A" in sent.getbands() else sent
    assert opens.convert("L").tobytes() == mask.tobytes()
    kept = np.asarray(mask) == 0
    assert np.array_equal(pixels(picture.image)[kept], pixels(given)[kept])
    drawing = upstreams.draw(charge.prompt, seed=charge.seed, width=given.width, height=given.height)
    assert np.array_equal(pixels(picture.image)[~kept], pixels(drawing)[~kept])
    assert inputs.mask_image is not None
    assert inputs.mask_image.tobytes() == mask.tobytes()


def test_strength_zero_gives_the_input_back_and_costs_nothing(changing: Desk) -> None:
    given = photo(changing)
    (picture,) = changing.draw(
        changing.spec(Operation.IMAGE_TO_IMAGE, strength=0), inputs=Inputs(image=given.copy())
    )

    assert picture.image.tobytes() == given.tobytes()
    assert not changing.fake.calls


def test_what_a_vendor_cannot_do_is_refused_before_it_is_asked(desk: Desk) -> None:
    beyond: dict[str, dict[str, Any]] = {
        "modelslab": {"width": 60},
        "imgprocessing": {"width": 512, "height": 512},
        "openai": {"height": 8},
    }
    if desk.vendor not in beyond:
        pytest.skip("this vendor states no limits")
    with pytest.raises(ProviderRefused, match="cannot do it"):
        desk.draw(desk.spec(**beyond[desk.vendor]))

    assert not desk.fake.calls
    assert desk.state().failures == 0


def test_a_job_that_is_cancelled_meanwhile_stops_at_that_very_check(desk: Desk) -> None:
    checks: list[bool] = []

    def check() -> None:
        checks.append(bool(desk.fake.charged))
        if checks[-1]:
            raise CancelRequested

    with pytest.raises(CancelRequested):
        desk.draw(check=check)

    assert checks.count(True) == 1
    (call,) = desk.calls()
    assert (call.state, str(call.cost)) == ("failed", COST)
    assert desk.fake.deleted == ([call.upstream_id] if desk.vendor == "imgprocessing" else [])
    assert desk.state().failures == 0


def test_threads_share_an_account_and_mix_up_nothing(desk: Desk) -> None:
    found: dict[int, bytes] = {}
    specs = {seed: desk.spec(prompt=f"{PROMPT} {seed}", seed=seed) for seed in (1, 2, 3)}
    together = threading.Barrier(len(specs))

    def work(seed: int) -> None:
        together.wait(timeout=30)
        (picture,) = desk.draw(specs[seed], job_id=uuid4())
        charge = next(it for it in desk.fake.charged if it.prompt == specs[seed].prompt)
        if shows(picture.image, charge.prompt, seed=charge.seed):
            found[seed] = picture.image.tobytes()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found.keys() == specs.keys()


@pytest.mark.parametrize("vendor", ["modelslab", "realm", "openai"])
def test_who_never_pays_twice_is_told_that_it_is_not_known(
    vendor: str, database: Database, settings: Settings
) -> None:
    with upstreams.upstream(vendor) as fake:
        desk = open_desk(fake, database, settings, ambiguous="fail")
        fake.script(moods.RESET)
        with pytest.raises(ProviderError):
            desk.draw()
        with pytest.raises(ProviderError) as refusal:
            desk.draw(number=2)

        assert (refusal.value.code, refusal.value.retryable) == ("upstream_ambiguous", False)
        assert (len(fake.charged), desk.states()) == (1, ["unknown"])


@pytest.mark.parametrize("vendor", ["realm", "openai"])
def test_an_idempotent_vendor_is_sent_the_same_call_again_and_paid_once(
    vendor: str, database: Database, settings: Settings
) -> None:
    with upstreams.upstream(vendor) as fake:
        fake.honours_idempotency = True
        desk = open_desk(fake, database, settings, idempotent=True)
        fake.script(moods.RESET)
        with pytest.raises(ProviderError):
            desk.draw()

        assert len(desk.draw(number=2)) == 1
        assert (len(fake.charged), desk.states()) == (1, ["unknown", "completed"])
        first, second = (submit.headers["idempotency-key"] for submit in fake.submits)
        assert first == second


def test_a_lost_image_of_img_processing_is_found_also_where_it_is_not_among_the_newest(
    database: Database, settings: Settings
) -> None:
    with upstreams.upstream("imgprocessing") as fake:
        desk = open_desk(fake, database, settings)
        fake.script(moods.RESET)
        with pytest.raises(ProviderError):
            desk.draw()
        upload_others(fake, 120)

        assert len(desk.draw(number=2)) == 1
        assert (len(fake.charged), desk.states()) == (1, ["completed"])
        assert [poll.query for poll in fake.polls] == [
            {"take": "100"},
            {"take": "100", "from": fake.polls[1].query["from"]},
        ]


def upload_others(fake: upstreams.Upstream, count: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    for number in range(count):
        answer = Customer(fake).post(
            "/v1/images/upload",
            files={"image": ("a.png", file.getvalue(), "image/png")},
            data={"name": f"other {number}"},
        )
        assert answer.status_code == 201


def test_images_inside_an_openai_answer_are_taken_from_it(database: Database, settings: Settings) -> None:
    with upstreams.upstream("openai") as fake:
        desk = open_desk(fake, database, settings, model="gpt-image-1")
        pictures = desk.draw(desk.spec(num_images=2))

        assert [picture.image.size for picture in pictures] == [SIZES["openai"]] * 2
        assert not fake.downloads
