"""What adapters make of a vendor that breaks off or refuses: was the call taken, and whose fault it is."""

import json
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.db import Database
from app.domain import catalog
from app.domain.upstreams import Upstream
from app.errors import (
    ContentRefused,
    ProviderBusy,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderRefused,
)
from app.safe_http import UPSTREAM_MAX_BYTES, for_upstreams
from app.settings import Settings
from tests import rows
from tests.servers.strangers import (
    HERE,
    Authority,
    Script,
    Stranger,
    answers,
    guard,
    head,
    says,
    silence,
    stranger,
)
from workers.providers.base import Inputs
from workers.providers.opening import upstream_provider
from workers.providers.upstream.adapters import adapter_of
from workers.providers.upstream.images import fetched
from workers.providers.upstream.line import Line
from workers.providers.upstream.promise import Adapter, AnswerLost, CallLost, Found, Order

NAME = "images.example"
BROKEN_RECORD = b"\x17\x03\x03\x00\x20" + b"x" * 32
"""As a middlebox leaves it that ends a connection."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def line_to(base_url: str, ca_file: Path | None = None) -> Line:
    """Give a line that trusts an authority, and finds every name at `HERE`."""
    return Line(
        base_url=base_url,
        guard=guard(ca_file=ca_file),
        timeout=timedelta(seconds=2),
        key="sk-1",
        connections=1,
    )


def breaks_the_record(*before: bytes) -> Script:
    """Say this much, and then send bytes past TLS."""

    def answer(_: Stranger, line: socket.socket) -> None:
        for piece in before:
            line.sendall(piece)
        os.write(line.fileno(), BROKEN_RECORD)

    return answer


@pytest.mark.parametrize("before", [(), (head("Content-Length: 10000"), b"some of it")], ids=["head", "body"])
def test_tls_that_breaks_where_the_answer_should_be_leaves_open_whether_the_call_was_taken(
    authority: Authority, before: tuple[bytes, ...]
) -> None:
    with stranger(breaks_the_record(*before), tls=authority.host(NAME)) as host:
        line = line_to(f"https://{NAME}:{host.port}", authority.file)
        with pytest.raises(AnswerLost):
            line.send("POST", "/images", json={"prompt": "a hill"})

        (request,) = host.requests
        assert b"a hill" in request


def test_tls_that_does_not_come_about_says_that_nothing_was_sent(authority: Authority) -> None:
    for trusted in (None, authority.file):
        with stranger(answers(), tls=authority.host("other.example")) as host:
            line = line_to(f"https://{NAME}:{host.port}", trusted)
            with pytest.raises(ProviderDown) as refusal:
                line.send("POST", "/images", json={"prompt": "a hill"})
            assert not isinstance(refusal.value, AnswerLost)
            assert host.requests == []


@pytest.mark.parametrize("greeting", [b"220 mail.example ESMTP\r\n", b""], ids=["other words", "silence"])
def test_a_host_that_speaks_no_tls_was_sent_nothing(greeting: bytes) -> None:
    with stranger(silence, greeting=greeting) as host:
        line = line_to(f"https://{NAME}:{host.port}")
        with pytest.raises(ProviderDown) as refusal:
            line.send("POST", "/images", json={"prompt": "a hill"})
        assert not isinstance(refusal.value, AnswerLost)


def test_a_port_where_nobody_listens_was_sent_nothing() -> None:
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
    line = line_to(f"http://{NAME}:{port}")
    with pytest.raises(ProviderDown) as refusal:
        line.send("POST", "/images", json={"prompt": "a hill"})
    assert not isinstance(refusal.value, AnswerLost)


def test_a_connection_that_came_about_and_broke_leaves_open_whether_the_call_was_taken() -> None:
    with stranger(lambda _host, _line: None) as host:
        line = line_to(host.url)
        with pytest.raises(AnswerLost):
            line.send("POST", "/images", json={"prompt": "a hill"})
        assert len(host.requests) == 1


# Whose fault a refusal is

ORDER = Order(spec=rows.make_spec(), inputs=Inputs(), index=0, images=1, reference="r-0", model="m")


def adapter_at(host: Stranger, api: str) -> Adapter:
    account = {"name": "vendor", "api": api, "base_url": host.url, "timeout": 2}
    return adapter_of(Upstream.model_validate(account), guard=guard(), key="sk-1")


def saying(body: dict[str, Any], status: str = "200 OK") -> Script:
    # The error that is held keeps the adapter and its connections, for whose end the host would wait.
    return answers(json.dumps(body).encode(), "Connection: close", status=status)


def error_of(api: str, status: str, body: dict[str, Any]) -> ProviderError:
    """Give the error that a paid call ends with where the vendor answers this."""
    with stranger(saying(body, status)) as host:
        with pytest.raises(ProviderError) as refusal:
            adapter_at(host, api).submit(ORDER)
        return refusal.value


UNVERIFIED = {
    "message": "Your organization must be verified to use the model `gpt-image-1`.",
    "type": "invalid_request_error",
    "code": None,
}


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("openai", {"error": UNVERIFIED}),
        ("modelslab", {"status": "error", "message": "This feature is not in your plan."}),
        ("realm", {"error": {"code": "FORBIDDEN", "message": "The model is not for you."}}),
        ("imgprocessing", {"type": "Forbidden", "message": "flux is for larger plans."}),
    ],
)
def test_a_403_about_one_model_shuts_no_account(api: str, body: dict[str, Any]) -> None:
    assert type(error_of(api, "403 Forbidden", body)) is ProviderRefused


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("openai", {"error": {"code": "invalid_api_key", "message": "Not you."}}),
        ("modelslab", {"status": "error", "message": "Invalid API key"}),
        ("realm", {"error": {"code": "UNAUTHENTICATED", "message": "Not you."}}),
        ("imgprocessing", {"message": "Authentication failed."}),
    ],
)
def test_a_403_about_the_key_shuts_the_account(api: str, body: dict[str, Any]) -> None:
    assert type(error_of(api, "403 Forbidden", body)) is ProviderDenied


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        ({"message": "Something went wrong, try again later", "code": "provider_error"}, ProviderDown),
        ({"message": "Something broke.", "code": "provider_error"}, ProviderDown),
        ({"messege": "Server is overloaded. Try again later."}, ProviderDown),
        ({"message": "Invalid API key"}, ProviderDenied),
        ({"message": "You have no credits left, please recharge."}, ProviderDenied),
        ({"message": "Rate limit exceeded. Maximum 5 queued requests allowed."}, ProviderBusy),
        ({"message": {"prompt": ["The prompt field is required."]}}, ProviderRefused),
        ({"message": "NSFW content in the prompt", "code": "provider_error"}, ContentRefused),
    ],
)
def test_modelslab_says_all_its_errors_with_status_200(
    body: dict[str, Any], meant: type[ProviderError]
) -> None:
    assert type(error_of("modelslab", "200 OK", {"status": "error", **body})) is meant


@pytest.mark.parametrize(
    ("status", "message", "meant"),
    [
        ("error", "Invalid API key", ProviderDenied),
        ("error", "Rate limit exceeded.", ProviderBusy),
        ("error", "Something went wrong, try again later", CallLost),
        ("failed", "There were not enough credits", CallLost),
    ],
)
def test_what_modelslab_says_of_the_account_is_not_taken_for_the_end_of_a_job_that_was_paid(
    status: str, message: str, meant: type[ProviderError]
) -> None:
    with (
        stranger(saying({"status": status, "message": message})) as host,
        pytest.raises(ProviderError) as refusal,
    ):
        adapter_at(host, "modelslab").ask("42", {"family": "v6/realtime"})
    assert type(refusal.value) is meant


# What cannot be reached, and what is too large


def test_an_upstream_that_a_malformed_setting_shuts_sends_its_jobs_elsewhere(
    settings: Settings, database: Database
) -> None:
    malformed = settings.model_copy(update={"upstream_allow": ("localhost:80",)})
    account = Upstream(name="vendor", api="openai", base_url="https://images.example/v1")

    with pytest.raises(ProviderDown, match="DARKROOM_UPSTREAM_ALLOW"):
        upstream_provider(malformed, catalog.load(), account, database)


def test_an_image_that_was_paid_for_may_be_larger_than_one_that_a_customer_names(settings: Settings) -> None:
    small = settings.model_copy(update={"fetch_max_bytes": 1000})
    with stranger(answers(b"x" * 5000)) as host:
        door = for_upstreams(small, host=f"{HERE}:{host.port}")

        assert len(fetched(Found(url=host.url), door)) == 5000


def test_an_image_that_was_paid_for_has_a_limit_too(settings: Settings) -> None:
    with stranger(says(head(f"Content-Length: {UPSTREAM_MAX_BYTES + 1}"))) as host:
        door = for_upstreams(settings, host=f"{HERE}:{host.port}")

        with pytest.raises(ProviderDown, match="too large"):
            fetched(Found(url=host.url), door)
