"""What a webhook says, to the letter, and that strangers' code accepts its signature."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app import shown, webhooks
from app.db.history import JobRow, OutputRow
from app.domain.job import Access, CopyState, Status
from app.domain.webhook import Event, Form
from app.webhooks import Told
from app.webhooks.bodies import MAX_BODY
from tests import rows

JOB_ID = UUID("0193f0a2-7c3b-7e4d-8a1b-2c3d4e5f6071")
DELIVERY_ID = UUID("5f1c0de4-0000-4000-8000-000000000001")
PREFIX = UUID("5d0c8e1f-2a3b-4c5d-8e9f-0a1b2c3d4e5f")
AT = datetime(2026, 11, 21, 10, 0, 9, 250_000, tzinfo=UTC)
CREATED = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
BASE = "https://img.example"

R = TypeVar("R")


def row(kind: Callable[..., R], **columns: Any) -> R:
    """A row that is null in all columns that are not given."""
    return kind(**{**dict.fromkeys(kind.__dataclass_fields__), **columns})  # type: ignore[attr-defined]  # it is a dataclass


JOB = row(
    JobRow,
    id=JOB_ID,
    account_id=UUID(int=7),
    number=100_001,
    dialect="modelslab",
    status=Status.COMPLETED,
    operation="text_to_image",
    model="sketch",
    provider="sketch",
    queue="cpu",
    priority=0,
    output_prefix=PREFIX,
    progress=1.0,
    attempt=1,
    max_attempts=5,
    created_at=CREATED,
    started_at=CREATED + timedelta(seconds=1),
    finished_at=CREATED + timedelta(seconds=3.5),
    spec=rows.make_spec().model_dump(mode="json"),
    test=False,
    track_id="7",
    base_url=BASE,
    persist=False,
    access="link",
    echo={"meta": {"enhance_style": "anime"}, "track_id": 7, "base64": False},
)
OUTPUT = row(
    OutputRow,
    id=UUID("0193f0a2-7c3b-7e4d-8a1b-000000000001"),
    job_id=JOB_ID,
    index=0,
    key="outputs/x",
    sha256="ab" * 32,
    size=412_873,
    width=768,
    height=512,
    format="png",
    seed=5,
    state="live",
    expires_at=CREATED + timedelta(days=1),
    test=False,
    access=Access.LINK,
    created_at=CREATED,
    expired=False,
)
FAILED = replace(JOB, status=Status.FAILED, error_code="timeout", error_message="It took too long.")
CANCELLED = replace(
    JOB, status=Status.CANCELLED, error_code="cancelled", error_message="The job was cancelled before it ran."
)
URL = f"{BASE}/outputs/{PREFIX.hex}-0.png"


def told(event: Event, job: JobRow | None, *outputs: OutputRow) -> Told:
    return Told(delivery_id=DELIVERY_ID, event=event, at=AT, job=job, outputs=outputs, base_url=BASE)


def said(form: Form, event: Event, job: JobRow | None, *outputs: OutputRow) -> Any:
    return json.loads(webhooks.render(form, told(event, job, *outputs)))


def test_modelslabs_success_to_the_letter() -> None:
    assert said(Form.MODELSLAB, Event.COMPLETED, JOB, OUTPUT) == {
        "status": "success",
        "id": 100_001,
        "output": [URL],
        "generationTime": 2.5,
        "track_id": 7,
        "webhook_status": "",
        "meta": {
            "id": "100001",
            "file_prefix": PREFIX.hex,
            "model": "sketch",
            "prompt": "a red hill under stars",
            "negative_prompt": "",
            "width": 32,
            "height": 24,
            "W": 32,
            "H": 24,
            "n_samples": 1,
            "seed": 1,
            "steps": 2,
            "guidance_scale": 7.5,
            "outdir": "out",
            "safety_checker": "no",
            "safety_checker_type": "black",
            "enhance_style": "anime",
        },
    }


@pytest.mark.parametrize(
    ("job", "message"),
    [(FAILED, "It took too long."), (CANCELLED, "The job was cancelled before it ran.")],
    ids=["failed", "cancelled"],
)
def test_modelslabs_failure_to_the_letter(job: JobRow, message: str) -> None:
    expected = {"status": "failed", "id": 100_001, "message": message, "track_id": 7}

    assert said(Form.MODELSLAB, Event(f"job.{job.status}"), job) == expected


def test_modelslabs_links_are_to_texts_where_base64_was_asked_for() -> None:
    job = replace(JOB, echo={"meta": {}, "track_id": None, "base64": True})

    body = said(Form.MODELSLAB, Event.COMPLETED, job, OUTPUT)

    assert body["output"] == [f"{BASE}/outputs/{PREFIX.hex}-0.base64"]
    assert body["track_id"] is None


def test_a_job_of_another_dialect_has_its_own_id_in_modelslabs_words() -> None:
    job = replace(JOB, dialect="jobs", number=None, echo=None, track_id="order-7")

    body = said(Form.MODELSLAB, Event.COMPLETED, job, OUTPUT)

    assert (body["id"], body["track_id"]) == (f"job_{JOB_ID.hex}", "order-7")
    assert body["meta"]["id"] == body["id"]


def test_realms_envelope_to_the_letter() -> None:
    assert said(Form.REALM, Event.COMPLETED, JOB, OUTPUT) == {
        "eventId": f"evt_{DELIVERY_ID.hex}",
        "eventType": "job.completed",
        "apiVersion": "v1",
        "createdAt": "2026-11-21T10:00:09.250Z",
        "data": {
            "object": "job",
            "jobId": f"job_{JOB_ID.hex}",
            "jobType": "image_generation",
            "createdAt": "2026-11-21T10:00:00.000Z",
            "status": "completed",
            "completedAt": "2026-11-21T10:00:03.500Z",
            "results": [
                {
                    "imageId": f"img_{OUTPUT.id.hex}",
                    "url": URL,
                    "seed": 5,
                    "width": 768,
                    "height": 512,
                    "expiresAt": "2026-11-22T10:00:00.000Z",
                }
            ],
        },
    }


@pytest.mark.parametrize(
    ("job", "code", "message"),
    [
        (FAILED, "TIMEOUT", "It took too long."),
        (CANCELLED, "CANCELLED", "The job was cancelled before it ran."),
        (replace(CANCELLED, error_code=None, error_message=None), "CANCELLED", "The job was cancelled."),
    ],
    ids=["failed", "cancelled", "without words"],
)
def test_realm_hears_of_a_job_without_images_as_failed(job: JobRow, code: str, message: str) -> None:
    body = said(Form.REALM, Event(f"job.{job.status}"), job)

    assert body["eventType"] == "job.failed"
    assert body["data"]["status"] == "failed"
    assert (body["data"]["errorCode"], body["data"]["errorMessage"]) == (code, message)
    assert "results" not in body["data"]


def test_our_own_form_is_the_job_as_our_api_shows_it() -> None:
    body = said(Form.JOBS, Event.COMPLETED, JOB, OUTPUT)

    assert body.keys() == {"type", "timestamp", "data"}
    assert (body["type"], body["timestamp"]) == ("job.completed", "2026-11-21T10:00:09.250Z")
    assert body["data"] == shown.job_shown(JOB, [OUTPUT], base_url=BASE).model_dump(mode="json")
    told = {
        "id": f"job_{JOB_ID.hex}",
        "status": "completed",
        "operation": "text_to_image",
        "model": "sketch",
        "provider": "sketch",
        "track_id": "7",
        "created_at": "2026-11-21T10:00:00Z",
        "started_at": "2026-11-21T10:00:01Z",
        "finished_at": "2026-11-21T10:00:03.500000Z",
        "error": None,
    }
    assert told.items() <= body["data"].items()
    (output,) = body["data"]["outputs"]
    image = {
        "id": f"img_{OUTPUT.id.hex}",
        "index": 0,
        "url": URL,
        "width": 768,
        "height": 512,
        "format": "png",
        "size": 412_873,
        "seed": 5,
        "sha256": "ab" * 32,
        "expires_at": "2026-11-22T10:00:00Z",
        "persisted": False,
    }
    assert image.items() <= output.items()


def test_our_own_form_says_why_a_job_failed() -> None:
    body = said(Form.JOBS, Event.FAILED, FAILED)

    assert body["data"]["error"] == {"code": "timeout", "message": "It took too long."}
    assert body["data"]["outputs"] == []


@pytest.mark.parametrize("form", Form)
def test_a_body_says_what_its_event_says_though_the_job_has_ended_since(form: Form) -> None:
    body = said(form, Event.PROCESSING, JOB, OUTPUT)

    assert body.get("data", body)["status"] == "processing"
    assert URL not in json.dumps(body)
    assert "3.5" not in json.dumps(body)


@pytest.mark.parametrize("form", Form)
def test_a_test_tells_of_no_job(form: Form) -> None:
    body = json.dumps(said(form, Event.TEST, None))

    assert "This is a test of your webhook" in body
    assert "job_" not in body


def test_an_image_in_the_customers_bucket_is_linked_there_and_never_expires() -> None:
    theirs = "https://bucket.example/generations/x-0.png"
    output = replace(OUTPUT, copy_state=CopyState.COPIED, copy_url=theirs)

    (image,) = said(Form.JOBS, Event.COMPLETED, JOB, output)["data"]["outputs"]

    assert (image["url"], image["expires_at"]) == (theirs, None)
    assert said(Form.MODELSLAB, Event.COMPLETED, JOB, output)["output"] == [theirs]


def test_a_kept_image_has_no_expiry() -> None:
    output = replace(OUTPUT, persisted_at=AT)

    (image,) = said(Form.JOBS, Event.COMPLETED, JOB, output)["data"]["outputs"]
    (result,) = said(Form.REALM, Event.COMPLETED, JOB, output)["data"]["results"]

    assert (image["persisted"], image["expires_at"]) == (True, None)
    assert "expiresAt" not in result


def test_a_private_image_has_no_link() -> None:
    output = replace(OUTPUT, access=Access.PRIVATE)

    assert said(Form.JOBS, Event.COMPLETED, JOB, output)["data"]["outputs"][0]["url"] is None
    assert said(Form.MODELSLAB, Event.COMPLETED, JOB, output)["output"] == []


def test_a_long_echo_is_shortened_and_the_links_are_not() -> None:
    long = "a snowman ☃ " * 4_000
    meta = {"webhook": long, "nested": [{"negative_prompt": long}], "init_image": f"{BASE}/{'x' * 2_500}"}
    job = replace(JOB, echo={"meta": meta, "track_id": "t"})

    body = webhooks.render(Form.MODELSLAB, told(Event.COMPLETED, job, OUTPUT))

    assert len(body.encode()) <= MAX_BODY
    content = json.loads(body)
    assert content["meta"]["webhook"].startswith("a snowman ☃")
    assert content["meta"]["init_image"] == meta["init_image"]
    assert content["output"] == [URL]


def test_an_image_that_a_request_echoes_is_never_sent_along() -> None:
    job = replace(JOB, echo={"meta": {"init_image": "data:image/png;base64,iVBORw0KGgo="}, "track_id": "t"})

    assert said(Form.MODELSLAB, Event.COMPLETED, job)["meta"]["init_image"] == "data:image/png;base64,…"


def test_the_largest_job_has_a_body_below_the_limit_in_every_form() -> None:
    outputs = [replace(OUTPUT, index=index) for index in range(16)]
    longest = rows.make_spec(num_images=16, prompt="☃" * 10_000, negative_prompt="☃" * 10_000)
    job = replace(JOB, spec=longest.model_dump(mode="json"))

    for form in Form:
        assert len(webhooks.render(form, told(Event.COMPLETED, job, *outputs)).encode()) <= MAX_BODY


# Signatures


def signed(*secrets: str, at: datetime | None = None, form: Form = Form.JOBS) -> tuple[bytes, dict[str, str]]:
    body = webhooks.render(form, told(Event.COMPLETED, JOB, OUTPUT)).encode()
    moment = at or datetime.now(UTC)
    return body, webhooks.headers(secrets, delivery_id=DELIVERY_ID, at=moment, body=body, form=form)


def test_a_secret_is_random_and_in_standard_base64() -> None:
    made = {webhooks.new_secret() for _ in range(100)}

    assert len(made) == 100
    for secret in made:
        prefix, _, text = secret.partition("_")
        assert prefix == "whsec"
        assert len(base64.b64decode(text, validate=True)) == 32


def test_the_standards_own_library_accepts_the_signature() -> None:
    secret = webhooks.new_secret()
    body, headers = signed(secret)

    assert Webhook(secret).verify(body, headers)["type"] == "job.completed"
    assert headers["webhook-id"] == f"msg_{DELIVERY_ID.hex}"


def test_the_standards_own_library_refuses_another_body_another_secret_and_an_old_time() -> None:
    secret = webhooks.new_secret()
    body, headers = signed(secret)
    old, old_headers = signed(secret, at=datetime.now(UTC) - timedelta(minutes=6))

    for key, content, sent in (
        (secret, body + b" ", headers),
        (webhooks.new_secret(), body, headers),
        (secret, old, old_headers),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(key).verify(content, sent)


def test_while_secrets_rotate_a_receiver_may_know_either() -> None:
    new, old = webhooks.new_secret(), webhooks.new_secret()
    body, headers = signed(new, old)

    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (new, old):
        Webhook(secret).verify(body, headers)


def test_only_realms_clients_get_realms_header_and_it_signs_the_raw_body() -> None:
    secret = webhooks.new_secret()
    body, headers = signed(secret, webhooks.new_secret(), form=Form.REALM)
    expected = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()

    assert headers["X-Webhook-Signature"] == expected
    assert "X-Webhook-Signature" not in signed(secret)[1]
