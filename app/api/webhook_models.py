"""The bodies of Darkroom's own webhook endpoints: what they read and what they answer, but for errors."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.api import http
from app.db.delivery_log import AttemptRow, DeliveryRow
from app.db.webhooks import EndpointRow
from app.domain.webhook import DeliveryStatus, Event, Form, Scope
from app.shown import JOB_PREFIX, Moment
from app.webhooks import MESSAGE_PREFIX, Registered

WEBHOOK_PREFIX: Final = "we_"
ID: Final = "we_0193f0a27c3b7e4d8a1b2c3d4e5f6071"
DELIVERY_ID: Final = "msg_0193f0a27c3b4e4d8a1b2c3d4e5f6071"
_LONGEST_KEEP: Final = 168
"""Hours that an old secret may live on: a week."""

JobEvent = Literal["job.processing", "job.completed", "job.failed", "job.cancelled"]


def _list(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list with at least one event")
    return value


def _moment(value: object) -> object:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("must be a time with its zone, such as 2026-11-21T10:00:00Z")
    return moment


def _within_what_utc_can_say(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of all range; send a time such as 2026-11-21T10:00:00Z") from None


AskedMoment = Annotated[datetime, AfterValidator(_within_what_utc_can_say), BeforeValidator(_moment)]


_WEBHOOKS_CURSOR: Final = f"^{WEBHOOK_PREFIX}[0-9a-f]{{32}}$"
_DELIVERIES_CURSOR: Final = "^[0-9]{1,17}-[0-9a-f]{32}$"


def _cursor(pattern: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError("must be the `next_cursor` of the page before")
        return text

    return AfterValidator(check)


def _described(pattern: str) -> Any:
    return Field(description="`next_cursor` of the page before", json_schema_extra={"pattern": pattern})


WebhooksCursor = Annotated[str, _cursor(_WEBHOOKS_CURSOR), _described(_WEBHOOKS_CURSOR)]
DeliveriesCursor = Annotated[str, _cursor(_DELIVERIES_CURSOR), _described(_DELIVERIES_CURSOR)]


class Request(BaseModel):
    """What a client sends; a member that is not known is refused, as it would be a typing error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What we answer."""

    model_config = ConfigDict(frozen=True)


class WebhookRequest(Request):
    """Where you want to be told of your jobs."""

    url: Annotated[
        str,
        Field(min_length=1, max_length=2048, description="Receives a POST for each event; http or https"),
        http.NO_NUL,
    ]
    form: Annotated[
        Literal["jobs", "modelslab", "realm"], Field(description="In whose words the bodies are")
    ] = "jobs"
    events: Annotated[
        list[JobEvent],
        Field(description="What to be told of", json_schema_extra={"minItems": 1}),
        BeforeValidator(_list),
    ] = ["job.completed", "job.failed", "job.cancelled"]


class RotateRequest(Request):
    """How long the secret before goes on signing."""

    hours: Annotated[
        float,
        Field(
            ge=0, le=_LONGEST_KEEP, allow_inf_nan=False, description="For how long both secrets sign; 0: not"
        ),
        http.JSON_NUMBER,
    ] = 24


class ReplayRequest(Request):
    """Which deliveries to send again: those of the events in [since, until)."""

    since: AskedMoment
    until: Annotated[AskedMoment | None, Field(description="Default: now")] = None
    status: Annotated[
        Literal["delivered", "failed"] | None,
        Field(description="Only those that ended like this; default: all that ended"),
    ] = None


class WebhooksQuery(Request):
    """Query of GET /v1/webhooks."""

    scope: Annotated[
        Literal["account", "request"],
        Field(description="account: those made here; request: the URLs that your requests named"),
    ] = "account"
    limit: Annotated[
        int, Field(ge=1, le=100, description="Most webhooks in the answer"), http.FORM_NUMBER
    ] = 20
    cursor: WebhooksCursor | None = None


class DeliveriesQuery(Request):
    """Query of GET /v1/webhooks/{id}/deliveries."""

    status: Annotated[
        Literal["pending", "delivered", "failed"] | None, Field(description="Only deliveries that stand so")
    ] = None
    limit: Annotated[
        int, Field(ge=1, le=100, description="Most deliveries in the answer"), http.FORM_NUMBER
    ] = 20
    cursor: DeliveriesCursor | None = None


class WebhookShown(Answer):
    """A webhook of yours; null stands for "not"."""

    id: Annotated[str, Field(examples=[ID])]
    url: str
    form: Form
    scope: Scope
    events: list[Event]
    created_at: Moment
    disabled_at: Annotated[Moment | None, Field(description="Since when nothing is sent to it")]
    disabled_reason: str | None
    failures: Annotated[int, Field(description="Tries in a row that failed")]
    paused_until: Annotated[
        Moment | None, Field(description="When it is tried again, after failures or at its own wish")
    ]
    previous_secret_until: Annotated[
        Moment | None, Field(description="Until when the secret before the latest rotation signs too")
    ]


class WebhookMade(WebhookShown):
    """A webhook with its secret, which is shown this once."""

    secret: Annotated[
        str,
        Field(
            description="Verifies `webhook-signature`, by Standard Webhooks",
            examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazfgnnMTVhE="],
        ),
    ]


class WebhooksShown(Answer):
    """A page of webhooks, newest first."""

    data: list[WebhookShown]
    next_cursor: Annotated[str | None, Field(description="Null on the last page")]


class DeliveryShown(Answer):
    """A webhook that was, or is to be, delivered; its `id` is the header `webhook-id` of every try."""

    id: Annotated[str, Field(examples=[DELIVERY_ID])]
    webhook_id: Annotated[str, Field(examples=[ID])]
    job_id: Annotated[str | None, Field(description="Null for a test")]
    event: Event
    status: DeliveryStatus
    tries: int
    next_try_at: Annotated[Moment | None, Field(description="The earliest; null unless `pending`")]
    created_at: Moment
    finished_at: Moment | None
    last_status: Annotated[int | None, Field(description="HTTP status of the last answer")]
    last_error: Annotated[str | None, Field(description="Why the last try failed")]


class AttemptShown(Answer):
    """One try."""

    number: int
    at: Moment
    seconds: float
    status: Annotated[int | None, Field(description="HTTP status of the answer; null: there was none")]
    error: Annotated[str | None, Field(description="Null when it was delivered")]
    response: Annotated[str | None, Field(description="The first kilobyte of the answer's body")]


class DeliveryDetail(DeliveryShown):
    """A delivery with what is sent and every try."""

    body: Annotated[str | None, Field(description="The same bytes for every try; null before the first")]
    attempts: list[AttemptShown]


class DeliveriesShown(Answer):
    """A page of deliveries, newest first."""

    data: list[DeliveryShown]
    next_cursor: Annotated[str | None, Field(description="Null on the last page")]


class ReplayShown(Answer):
    """How many deliveries are sent again."""

    replayed: int


def webhook_shown(row: EndpointRow) -> WebhookShown:
    """Give an endpoint as its owner sees it."""
    return WebhookShown(**_webhook(row))


def webhook_made(made: Registered) -> WebhookShown:
    """Give an endpoint, with its secret where that is new."""
    if made.secret is None:
        return webhook_shown(made.endpoint)
    return WebhookMade(**_webhook(made.endpoint), secret=made.secret)


def _webhook(row: EndpointRow) -> dict[str, Any]:
    return {
        "id": WEBHOOK_PREFIX + row.id.hex,
        "url": row.url,
        "form": row.form,
        "scope": row.scope,
        "events": row.events,
        "created_at": row.created_at,
        "disabled_at": row.disabled_at,
        "disabled_reason": row.disabled_reason,
        "failures": row.failures,
        "paused_until": row.paused_until,
        "previous_secret_until": row.previous_until,
    }


def delivery_shown(row: DeliveryRow) -> DeliveryShown:
    """Give a delivery as its owner sees it."""
    return DeliveryShown(**_delivery(row))


def delivery_detail(row: DeliveryRow, attempts: list[AttemptRow]) -> DeliveryDetail:
    """Give a delivery with its body and its tries."""
    tries = [
        AttemptShown(
            number=each.number,
            at=each.at,
            seconds=round(each.seconds, 3),
            status=each.status_code,
            error=each.error,
            response=each.response,
        )
        for each in attempts
    ]
    return DeliveryDetail(**_delivery(row), body=row.body, attempts=tries)


def _delivery(row: DeliveryRow) -> dict[str, Any]:
    return {
        "id": MESSAGE_PREFIX + row.id.hex,
        "webhook_id": WEBHOOK_PREFIX + row.endpoint_id.hex,
        "job_id": None if row.job_id is None else JOB_PREFIX + row.job_id.hex,
        "event": row.event,
        "status": row.status,
        "tries": row.attempts,
        "next_try_at": row.run_at if row.status is DeliveryStatus.PENDING else None,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "last_status": row.last_status,
        "last_error": row.last_error,
    }
