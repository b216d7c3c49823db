"""What every adapter promises, whatever its vendor does: each runs through every mood of the fake upstreams.

Through the real provider, on a real database. Nobody pays more often than there are attempts, and once where
the vendor gave an id; what comes out is the picture in the size asked for or an error that names no key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from PIL import Image

from app import safe_http
from app.db import Database
from app.domain.catalog import Catalog
from app.domain.spec import JobSpec, Operation, StoredImage
from app.errors import CancelRequested, DarkroomError, ProviderError
from app.settings import Settings
from tests import rows, upstreams
from tests.upstreams import Kind, Mood, moods
from workers.providers.base import Attempt, Inputs, Picture
from workers.providers.upstream import Upstream

MODELS = {
    "modelslab": "v6/realtime",
    "imgprocessing": "sdxl",
    "realm": "mod_landscape",
    "openai": "painter",
}
PREFIX = {"modelslab": "/api", "imgprocessing": "/v1", "realm": "/v1", "openai": "/v1"}
SIZES = {"modelslab": (64, 64), "imgprocessing": (1024, 1024), "realm": (96, 64), "openai": (64, 64)}
DRAWING = {
    vendor: [Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE, Operation.INPAINT]
    for vendor in ("modelslab", "realm", "openai")
}
CODES = {
    *("provider_unavailable", "provider_busy", "provider_denied", "provider_refused", "content_refused"),
    *("answer_lost", "call_lost", "deferred"),
}
STORED = StoredImage(key="inputs/x", sha256="0" * 64, width=64, height=64)


@dataclass
class Bench:
    """An account at a fake vendor, and what a worker asks it."""

    vendor: str
    fake: upstreams.Upstream
    provider: Upstream
    database: Database
    job_id: UUID

    def spec(self, operation: Operation = Operation.TEXT_TO_IMAGE, **changes: Any) -> JobSpec:
        width, height = SIZES[self.vendor]
        given = {"image": STORED} if operation is not Operation.TEXT_TO_IMAGE else {}
        mask = {"mask_image": STORED} if operation is Operation.INPAINT else {}
        fields = {"operation": operation, "model": "m", "width": width, "height": height, "seed": 5}
        return rows.make_spec(**{**fields, **given, **mask, **changes})

    def attempt(self, number: int = 1, **changes: Any) -> Attempt:
        plain: dict[str, Any] = {"check": lambda: None, "progress": lambda _share: None}
        plain |= {"model": MODELS[self.vendor], "job_id": self.job_id, "number": number}
        return Attempt(**{**plain, **changes})

    def draw(
        self, spec: JobSpec | None = None, *, inputs: Inputs | None = None, **changes: Any
    ) -> list[Picture]:
        attempt = self.attempt(**changes)
        return list(self.provider.generate(spec or self.spec(), inputs or Inputs(), attempt))

    def calls(self) -> list[rows.Look]:
        return rows.query(self.database, "SELECT * FROM upstream_calls ORDER BY created_at, id")

    def state(self) -> rows.Look:
        return rows.query(self.database, "SELECT * FROM provider_state")[0]


def open_bench(
    vendor: str, fake: upstreams.Upstream, database: Database, settings: Settings, **account: Any
) -> Bench:
    width, height = SIZES[vendor]
    entry = {
        "name": "Vendor's",
        "id": "m",
        "created_at": "2026-11-25T00:00:00Z",
        "operations": ["text_to_image", "image_to_image", "inpaint"],
        "width": width,
        "height": height,
        "size": {"min": 16, "max": 1024, "max_pixels": 1048576},
        "max_images": 8,
        "defaults": {"num_inference_steps": 2, "guidance_scale": 7.5, "strength": 0.7},
        "targets": [{"provider": "vendor", "model": MODELS[vendor], "cost_per_image": "0.01"}],
    }
    about = {"name": "vendor", "api": vendor, "base_url": fake.base_url + PREFIX[vendor], "timeout": 0.6}
    catalog = Catalog.model_validate(
        {"models": [entry], "upstreams": [{**about, "longest_wait": 2.0, **account}]}
    )
    host = urlsplit(fake.base_url).netloc
    provider = Upstream(
        upstream=catalog.upstreams[0],
        catalog=catalog,
        key=fake.key,
        database=database,
        guard=safe_http.for_upstreams(
            settings.model_copy(update={"fetch_timeout": timedelta(seconds=0.8)}), host=host
        ),
    )
    return Bench(vendor, fake, provider, database, uuid4())


@pytest.fixture(params=upstreams.VENDORS)
def bench(request: pytest.FixtureRequest, database: Database, settings: Settings) -> Iterator[Bench]:
    with upstreams.upstream(request.param) as fake:
        yield open_bench(request.param, fake, database, settings)


def given(bench: Bench) -> Inputs:
    size = SIZES[bench.vendor]
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return Inputs(image=Image.new("RGB", size, (200, 30, 30)), mask_image=mask)


def test_a_picture_comes_back_as_it_was_asked_for_and_is_paid_once(bench: Bench) -> None:
    (picture,) = bench.draw()

    assert (picture.image.mode, picture.image.size) == ("RGB", SIZES[bench.vendor])
    assert len(bench.fake.charged) == 1
    (call,) = bench.calls()
    assert (call.state, call.attempt, str(call.cost)) == ("completed", 1, "0.010000")
    assert not bench.fake.trespasses


def test_several_images_are_several_pictures(bench: Bench) -> None:
    pictures = bench.draw(bench.spec(num_images=3))

    assert len(pictures) == 3
    assert len({picture.image.tobytes() for picture in pictures}) == 3
    assert sum(charge.images for charge in bench.fake.charged) == 3


@pytest.mark.parametrize("operation", [Operation.IMAGE_TO_IMAGE, Operation.INPAINT])
def test_input_images_arrive_and_only_what_a_mask_opens_changes(bench: Bench, operation: Operation) -> None:
    if bench.vendor not in DRAWING:
        pytest.skip("this vendor draws from text only")
    inputs = given(bench)
    if operation is Operation.IMAGE_TO_IMAGE:
        inputs = Inputs(image=inputs.image)

    (picture,) = bench.draw(bench.spec(operation), inputs=inputs)

    assert bench.fake.charged[0].operation == operation.value
    right = picture.image.getpixel((SIZES[bench.vendor][0] - 2, 5))
    left = picture.image.getpixel((2, 5))
    if operation is Operation.INPAINT:
        assert right == (200, 30, 30)
        assert left != (200, 30, 30)


def test_strength_zero_is_the_input_and_costs_nothing(bench: Bench) -> None:
    if bench.vendor not in DRAWING:
        pytest.skip("this vendor draws from text only")
    inputs = Inputs(image=given(bench).image)

    (picture,) = bench.draw(bench.spec(Operation.IMAGE_TO_IMAGE, strength=0), inputs=inputs)

    assert inputs.image is not None
    assert picture.image.tobytes() == inputs.image.tobytes()
    assert not bench.fake.calls


def test_a_call_that_has_an_id_is_asked_for_by_the_next_attempt(bench: Bench) -> None:
    if bench.vendor == "openai":
        pytest.skip("it has no ids")
    broken = moods.SERVER_ERROR.on(Kind.DOWNLOAD if bench.vendor == "imgprocessing" else Kind.POLL)
    if bench.vendor == "modelslab":
        bench.fake.script(moods.PENDING)
    bench.fake.script(broken)
    with pytest.raises(ProviderError):
        bench.draw()

    assert len(bench.draw(number=2)) == 1
    assert len(bench.fake.charged) == 1
    assert [call.state for call in bench.calls()] == ["completed"]


def test_a_lost_answer_is_bought_again_only_where_nobody_can_be_asked(bench: Bench) -> None:
    bench.fake.script(moods.RESET)
    with pytest.raises(ProviderError):
        bench.draw()
    assert [call.state for call in bench.calls()] == ["sending"]

    bench.draw(number=2)

    can_be_asked = bench.vendor == "imgprocessing"
    assert len(bench.fake.charged) == (1 if can_be_asked else 2)
    assert bench.calls()[0].state == ("completed" if can_be_asked else "unknown")


@pytest.mark.parametrize("vendor", ["modelslab", "realm", "openai"])
def test_who_never_pays_twice_is_told_that_it_is_not_known(
    vendor: str, database: Database, settings: Settings
) -> None:
    with upstreams.upstream(vendor) as fake:
        bench = open_bench(vendor, fake, database, settings, ambiguous="fail")
        fake.script(moods.RESET)
        with pytest.raises(ProviderError):
            bench.draw()

        with pytest.raises(ProviderError) as refusal:
            bench.draw(number=2)

        assert (refusal.value.code, refusal.value.retryable) == ("upstream_ambiguous", False)
        assert len(fake.charged) == 1


@pytest.mark.parametrize("vendor", ["realm", "openai"])
def test_an_idempotent_vendor_is_sent_the_same_call_again(
    vendor: str, database: Database, settings: Settings
) -> None:
    with upstreams.upstream(vendor) as fake:
        fake.honours_idempotency = True
        bench = open_bench(vendor, fake, database, settings, idempotent=True)
        fake.script(moods.RESET)
        with pytest.raises(ProviderError):
            bench.draw()

        assert len(bench.draw(number=2)) == 1
        assert len(fake.charged) == 1


def test_a_vendor_that_is_busy_is_left_alone_as_long_as_it_asks(bench: Bench) -> None:
    bench.fake.script(moods.RETRY_AFTER_SECONDS)
    with pytest.raises(ProviderError) as refusal:
        bench.draw()

    assert refusal.value.code == "provider_busy"
    assert not refusal.value.charged
    assert refusal.value.retry_after
    assert len(bench.draw(number=2)) == 1
    first, second = bench.fake.submits
    assert second.at - first.at >= 0.9
    assert bench.calls()[0].state == "refused"


def test_a_wrong_key_opens_the_breaker_at_once(bench: Bench) -> None:
    bench.fake.always(moods.BAD_KEY)
    with pytest.raises(ProviderError) as refusal:
        bench.draw()

    assert refusal.value.code == "provider_denied"
    assert not refusal.value.charged
    assert bench.state().opened_until is not None
    assert bench.fake.key not in refusal.value.message


def test_five_failures_in_a_row_open_the_breaker_and_a_success_closes_it(bench: Bench) -> None:
    for number in range(1, 6):
        bench.fake.script(moods.SERVER_ERROR)
        with pytest.raises(ProviderError) as refusal:
            bench.draw(number=number)
        assert refusal.value.charged == (number < 5)
    assert bench.state().opened_until is not None

    bench.draw(number=6)

    assert (bench.state().failures, bench.state().opened_until) == (0, None)


def test_a_cancelled_job_stops_waiting(bench: Bench) -> None:
    if bench.vendor in {"openai", "imgprocessing"}:
        pytest.skip("it answers at once")
    bench.fake.always(moods.STUCK)
    looks = iter(range(1000))

    def check() -> None:
        if next(looks) > 4:
            raise CancelRequested

    with pytest.raises(CancelRequested):
        bench.draw(check=check)
    assert [call.state for call in bench.calls()] == ["failed"]


def _some(config: pytest.Config) -> list[tuple[str, Mood]]:
    """All cases with --long; else each mood at one vendor, each time the next of those that it can strike."""
    every = list(upstreams.cases())
    if config.getoption("--long"):
        return every
    by_mood: dict[str, list[tuple[str, Mood]]] = {}
    for vendor, mood in every:
        by_mood.setdefault(str(mood), []).append((vendor, mood))
    return [found[number % len(found)] for number, found in enumerate(by_mood.values())]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mood" in metafunc.fixturenames:
        metafunc.parametrize(("vendor", "mood"), _some(metafunc.config), ids=str)


def test_whatever_a_vendor_does_the_promise_holds(
    vendor: str, mood: Mood, database: Database, settings: Settings
) -> None:
    with upstreams.upstream(vendor) as fake:
        bench = open_bench(vendor, fake, database, settings)
        fake.script(mood)
        errors: list[DarkroomError] = []
        pictures: list[Picture] = []
        for number in (1, 2, 3):
            try:
                pictures = bench.draw(number=number)
                break
            except ProviderError as error:
                errors.append(error)
                rows.execute(database, "UPDATE provider_state SET paused_until = NULL")
                if not error.retryable:
                    break

        assert len(fake.charged) <= len(errors) + bool(pictures)
        assert not fake.trespasses
        assert all(fake.key not in error.message for error in errors)
        assert pictures or errors
        assert all(error.code in CODES for error in errors), [error.code for error in errors]
        for picture in pictures:
            assert (picture.image.mode, picture.image.size) == ("RGB", SIZES[vendor])
        known = {call.upstream_id for call in bench.calls() if call.upstream_id}
        assert known or vendor == "openai" or not pictures
        assert {call.state for call in bench.calls()} <= {
            "completed",
            "refused",
            "failed",
            "unknown",
            "sending",
        } | ({"accepted"} if errors else set())
