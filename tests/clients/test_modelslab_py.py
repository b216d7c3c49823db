"""The vendor's own Python client, `modelslab-py`, unmodified, against a running Darkroom."""

import asyncio
import warnings
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import pytest
import requests

from app.db import Database, connect
from app.settings import Settings
from app.storage import open_store
from tests import rows
from tests.conftest import Account
from tests.factories import picture
from tests.realtime import image_of, pixels, saved, text_of
from tests.serving import serving
from tests.waiting import eventually

T = TypeVar("T")
SMALL: dict[str, Any] = {"prompt": "a cat sitting on a bench", "width": 64, "height": 48}


@dataclass(frozen=True)
class Vendor:
    """The client's modules; its models are written for an older pydantic, which warns of them."""

    client: ModuleType
    realtime: ModuleType
    community: ModuleType
    schemas: ModuleType
    community_schemas: ModuleType


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ("core.client", "core.apis.realtime", "core.apis.community", "schemas.realtime")
        return Vendor(*(import_module(f"modelslab_py.{name}") for name in (*names, "schemas.community")))


pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture(scope="module")
def address(base_settings: Settings) -> Iterator[str]:
    """One Darkroom for all tests; each comes from an account of its own."""
    settings = base_settings.model_copy(
        update={"rate_limit_per_minute": 100_000, "lease": timedelta(seconds=2)}
    )
    database = connect(settings, application_name="darkroom tests")
    with serving(settings, database, open_store(settings)) as url:
        yield url
    database.close()


@dataclass
class Customer:
    """Somebody who has the client, and has set its one attribute that says where the API is."""

    vendor: Vendor
    client: Any

    def realtime(self, *, enterprise: bool) -> Any:
        return self.vendor.realtime.Realtime(self.client, enterprise=enterprise)

    def community(self) -> Any:
        return self.vendor.community.Community(self.client)

    def text2img(self, **members: Any) -> Any:
        return self.vendor.schemas.RealtimeText2ImageSchema(**{**SMALL, **members})

    def img2img(self, **members: Any) -> Any:
        sent = {**SMALL, "init_image": text_of(picture(64, 48)), **members}
        return self.vendor.schemas.RealtimeImage2ImageSchema(**sent)

    def inpaint(self, **members: Any) -> Any:
        sent = {**SMALL, "init_image": text_of(picture(64, 48)), **members}
        return self.vendor.schemas.RealtimeInpaintingSchema(**sent)


@pytest.fixture
def customer(vendor: Vendor, address: str, database: Database, account: Account) -> Customer:
    del database  # emptied first
    client = vendor.client.Client(account.key, fetch_retry=200, fetch_timeout=0.05)
    client.base_url = f"{address}/api/"
    return Customer(vendor, client)


def picture_at(url: str) -> bytes:
    got = requests.get(url, timeout=10)
    assert (got.status_code, got.headers["Content-Type"]) == (200, "image/png")
    return got.content


@pytest.mark.parametrize("enterprise", [True, False], ids=["enterprise", "v6"])
def test_text_to_image(enterprise: bool, customer: Customer) -> None:  # noqa: FBT001 - the case
    answer = customer.realtime(enterprise=enterprise).text_to_image(customer.text2img(samples=2, seed=5))

    assert answer["status"] == "success"
    assert [image_of(picture_at(url)).size for url in answer["output"]] == [(64, 48)] * 2
    assert answer["meta"]["seed"] == 5


@pytest.mark.parametrize("enterprise", [True, False], ids=["enterprise", "v6"])
def test_image_to_image(enterprise: bool, customer: Customer) -> None:  # noqa: FBT001 - the case
    answer = customer.realtime(enterprise=enterprise).image_to_image(
        customer.img2img(strength=0.7, enhance_style="watercolor", safety_checker="no", track_id="t1")
    )

    assert answer["status"] == "success"
    assert image_of(picture_at(answer["output"][0])).size == (64, 48)
    assert answer["meta"]["enhance_style"] == "watercolor"
    assert answer["meta"]["track_id"] == "t1"


@pytest.mark.parametrize("enterprise", [True, False], ids=["enterprise", "v6"])
def test_inpaint(enterprise: bool, customer: Customer) -> None:  # noqa: FBT001 - the case
    image, mask = picture(64, 48), image_of(picture(64, 48, mode="L"))
    mask.paste(0, (0, 0, 32, 48))
    mask.paste(255, (32, 0, 64, 48))

    answer = customer.realtime(enterprise=enterprise).inpainting(
        customer.inpaint(init_image=text_of(image), mask_image=text_of(saved(mask)))
    )

    after = pixels(picture_at(answer["output"][0]))
    assert (after[:, :32] == pixels(image)[:, :32]).all()
    assert (after[:, 32:] != pixels(image)[:, 32:]).any()


@pytest.mark.parametrize("enterprise", [True, False], ids=["enterprise", "v6"])
def test_what_was_queued_is_fetched(enterprise: bool, customer: Customer) -> None:  # noqa: FBT001 - the case
    realtime = customer.realtime(enterprise=enterprise)
    queued = realtime.image_to_image(customer.img2img(instant_response=True, base64=True))

    fetched = realtime.fetch(str(queued["id"]))

    assert (queued["status"], queued["output"]) == ("processing", [])
    assert fetched["status"] == "success"
    assert fetched["output"] == queued["future_links"]
    text = requests.get(fetched["output"][0], timeout=10).text
    module = import_module("modelslab_py.utils.image_utils")
    assert module.base64_to_image(text).size == (64, 48)


def test_future_links_are_not_there_and_then_they_are(customer: Customer) -> None:
    queued = customer.realtime(enterprise=True).text_to_image(
        customer.text2img(instant_response="yes", samples=1)
    )

    (url,) = queued["future_links"]
    eventually(lambda: requests.get(url, timeout=10).status_code == 200, within=20)
    assert image_of(picture_at(url)).size == (64, 48)


def test_the_community_api_with_its_words_for_switches(customer: Customer) -> None:
    community = customer.community()
    schema = customer.vendor.community_schemas.Text2Image(
        **SMALL, model_id="sketch", samples=1, safety_checker="no", enhance_prompt="yes", panorama="no"
    )

    answer = community.text_to_image(schema)
    fetched = community.fetch(str(answer["id"]))

    assert answer["status"] == fetched["status"] == "success"
    assert answer["output"] == fetched["output"] == answer["proxy_links"]


def test_the_system_details_of_the_enterprise_client(customer: Customer) -> None:
    details = customer.realtime(enterprise=True).system_details()

    assert details["status"] == "ok"
    assert details["model_count"] >= 1


def test_what_is_refused_is_told_by_the_client(customer: Customer, vendor: Vendor) -> None:
    realtime = customer.realtime(enterprise=True)
    stranger = vendor.client.Client("not-a-key-of-ours")
    stranger.base_url = customer.client.base_url

    with pytest.raises(Exception, match=r"status code 400: .*The samples field must be at most 4\."):
        realtime.text_to_image(customer.text2img(samples=5))
    with pytest.raises(Exception, match=r"status code 403: .*There is no cache of yours"):
        realtime.clear_cache()
    with pytest.raises(Exception, match=r"status code 401: .*Invalid API key"):
        vendor.realtime.Realtime(stranger, enterprise=True).text_to_image(customer.text2img())


def test_the_client_in_its_asynchronous_form(customer: Customer) -> None:
    customer.client.fetch_timeout = 30  # the limit of a whole request in this form

    async def use() -> tuple[Any, Any]:
        async with customer.client:
            realtime = customer.realtime(enterprise=False)
            answer = await realtime.async_image_to_image(customer.img2img())
            return answer, await realtime.async_fetch(str(answer["id"]))

    answer, fetched = run(use())
    assert answer["status"] == fetched["status"] == "success"
    assert image_of(picture_at(fetched["output"][0])).size == (64, 48)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_the_clients_key_is_not_kept_in_what_it_asked_for(
    customer: Customer, account: Account, database: Database
) -> None:
    customer.realtime(enterprise=True).text_to_image(customer.text2img())

    (job,) = rows.query(database, "SELECT jobs::text AS whole FROM jobs")
    assert account.key not in job.whole
