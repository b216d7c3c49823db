"""Jobs and pictures of the fake upstreams that go wrong after they were taken and charged."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from tests.upstreams import VENDORS, Kind, Mood, cases, moods, shows, upstream
from tests.upstreams.openai import STRICT
from tests.upstreams.plain import PROMPT, SEED, Customer, opened

EACH_VENDOR = pytest.mark.parametrize("vendor", VENDORS)
QUEUED = ("modelslab", "realm")


# --- stage job ----------------------------------------------------------------------------------------------


def states(customer: Customer, order: requests.Response, polls: int) -> list[str]:
    return [str(customer.look(order).json()["status"]) for _ in range(polls)]


@pytest.mark.parametrize(
    ("vendor", "mood", "told"),
    [
        ("modelslab", moods.PENDING, ["processing", "processing", "success"]),
        ("modelslab", moods.PENDING_FLOAT_ETA, ["processing", "success"]),
        ("modelslab", moods.STUCK, ["processing"] * 5),
        ("modelslab", moods.FAILED, ["failed", "failed"]),
        ("modelslab", moods.FAILED_AS_ERROR, ["error"]),
        ("modelslab", moods.FLICKERING, ["success", "processing", "success", "success"]),
        ("modelslab", moods.LOST, ["error"]),
        ("realm", moods.PENDING, ["queued", "processing", "completed"]),
        ("realm", moods.STUCK, ["queued"] + ["processing"] * 4),
        ("realm", moods.FAILED, ["failed", "failed"]),
        ("realm", moods.UNSAFE, ["failed"]),
        ("realm", moods.FLICKERING, ["completed", "processing", "completed"]),
    ],
    ids=lambda it: str(it) if not isinstance(it, list) else "",
)
def test_a_job_is_charged_once_and_goes_as_scripted(vendor: str, mood: Mood, told: list[str]) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        fake.script(mood)

        order = customer.order()

        assert order.json()["status"] in {"processing", "queued"}
        assert states(customer, order, len(told)) == told
        assert len(fake.charged) == 1
        assert len(fake.polls) == len(told)


@pytest.mark.parametrize("vendor", QUEUED)
def test_a_lost_job_is_unknown_to_every_poll(vendor: str) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        fake.script(moods.LOST)
        order = customer.order()

        assert [customer.look(order).status_code for _ in range(2)] == [404, 404]


@pytest.mark.parametrize("vendor", QUEUED)
def test_a_stuck_job_ends_when_it_is_let_go(vendor: str) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        fake.always(moods.STUCK)
        order = customer.order()
        customer.look(order)

        fake.finish_all()

        assert states(customer, order, 1) == ["success" if vendor == "modelslab" else "completed"]
        assert shows(opened(customer.fetch(order)[0][0]), PROMPT, seed=fake.charged[0].seed)


def test_modelslab_promises_links_that_are_not_there_until_the_job_is_done() -> None:
    with upstream("modelslab") as fake:
        customer = Customer(fake)
        fake.script(moods.PENDING_FLOAT_ETA)
        order = customer.order()
        (link,) = order.json()["future_links"]

        assert isinstance(order.json()["eta"], float)
        assert customer.look(order).json()["output"] == ""
        assert customer.get(link).ok
        fake.script(moods.STUCK)
        assert customer.get(customer.order().json()["future_links"][0]).status_code == 404


def test_modelslab_blanks_what_it_flags() -> None:
    with upstream("modelslab") as fake:
        customer = Customer(fake)
        fake.script(moods.UNSAFE)
        order = customer.order()

        assert order.json()["nsfw_content_detected"] is True
        assert opened(customer.fetch(order)[0][0]).getcolors() == [(64 * 48, (0, 0, 0))]


@pytest.mark.parametrize("vendor", ["modelslab", "realm", "openai"])
@pytest.mark.parametrize(
    ("mood", "many"), [(moods.TOO_FEW_PICTURES, 1), (moods.TOO_MANY_PICTURES, 3)], ids=str
)
def test_the_number_of_pictures_is_not_the_one_ordered(vendor: str, mood: Mood, many: int) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        fake.script(mood)

        name = {"modelslab": "samples", "realm": "numOutputs", "openai": "n"}[vendor]
        order = customer.order(**dict[str, Any]({name: 2}))

        assert len(customer.fetch(order)) == many
        assert fake.charged[0].images == 2


def test_imgprocessing_gives_no_object_or_a_list_of_them() -> None:
    with upstream("imgprocessing") as fake:
        fake.script(moods.TOO_FEW_PICTURES, moods.TOO_MANY_PICTURES)

        assert Customer(fake).order().json() == {}
        assert len(Customer(fake).order().json()) == 2


@EACH_VENDOR
def test_odd_types_carry_the_same_pictures(vendor: str) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        fake.script(moods.ODD_TYPES)

        order = customer.order()

        assert "surprise" in order.text
        assert vendor != "modelslab" or isinstance(order.json()["id"], str)
        assert shows(opened(customer.fetch(order)[0][0]), PROMPT, seed=fake.charged[0].seed)


@pytest.mark.parametrize("vendor", ["modelslab", "realm", "openai"])
def test_the_url_of_a_picture_can_lead_where_nobody_should_go(vendor: str) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        fake.script(moods.METADATA_URL, moods.FILE_URL, moods.LOOPBACK_URL)

        first, second, third = (customer.urls(customer.order())[0] for _ in range(3))

        assert urlsplit(first).hostname == "169.254.169.254"
        assert second == "file:///etc/hostname"
        assert third.startswith(fake.elsewhere_url)
        assert opened(customer.get(third).content).size == (64, 64)
        assert [call.path for call in fake.trespasses] == [urlsplit(third).path]


# --- stage picture ------------------------------------------------------------------------------------------


def is_whole(data: bytes) -> bool:
    try:
        opened(data)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def says_it_is_huge(data: bytes) -> bool:
    return data[16:24] == (20_000).to_bytes(4, "big") * 2 and len(data) < 200_000


SPOILT: dict[str, Callable[[bytes], bool]] = {
    "truncated_image": lambda data: len(data) > 10 and not is_whole(data),
    "html_as_image": lambda data: b"<html>" in data,
    "html_labelled_png": lambda data: b"<html>" in data,
    "empty_image": lambda data: data == b"",
    "slightly_wrong_size": lambda data: opened(data).width in {64 + 8, 1024 + 8},
    "absurdly_wrong_size": lambda data: opened(data).size == (3, 2),
    "bomb": lambda data: says_it_is_huge(data) and not is_whole(data),
    "svg": lambda data: b"<svg" in data,
    "junk_image": lambda data: data.startswith(b"\x89PNG") and not is_whole(data),
}


@pytest.mark.parametrize(("vendor", "mood"), cases("picture"), ids=str)
def test_a_picture_is_not_what_it_should_be(vendor: str, mood: Mood) -> None:
    with upstream(vendor) as fake:
        customer = Customer(fake)
        fake.script(mood)

        order = customer.order()
        data, content_type = customer.fetch(order)[0]

        assert SPOILT[mood.name](data)
        assert content_type == {
            "html_as_image": "text/html; charset=utf-8",
            "html_labelled_png": "image/png",
            "svg": "image/svg+xml",
        }.get(mood.name, content_type)
        again = customer.fetch(order)[0][0]
        assert (again == data) is (mood.kind is Kind.SUBMIT)  # spoilt for good, or by one download
        assert len(fake.charged) == 1


def test_a_picture_in_base64_is_spoilt_too() -> None:
    with upstream("openai") as fake:
        customer = Customer(fake)
        fake.script(moods.TRUNCATED_IMAGE)

        order = customer.order(model=STRICT, seed=None)

        assert not is_whole(customer.fetch(order)[0][0])


def test_seeds_that_the_customer_does_not_give_are_chosen_and_told() -> None:
    with upstream("modelslab") as fake:
        order = Customer(fake).order(seed=None).json()

        assert order["meta"]["seed"] == fake.charged[0].seed != SEED
