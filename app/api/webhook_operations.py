"""Darkroom's own webhook endpoints as the OpenAPI document describes them."""

from typing import Any, Final

from app.api.operations import Operation, PathPart
from app.api.outputs import ErrorShown
from app.api.webhook_models import (
    DELIVERY_ID,
    ID,
    WEBHOOK_PREFIX,
    DeliveriesQuery,
    DeliveriesShown,
    DeliveryDetail,
    DeliveryShown,
    ReplayRequest,
    ReplayShown,
    RotateRequest,
    WebhookMade,
    WebhookRequest,
    WebhookShown,
    WebhooksQuery,
    WebhooksShown,
)
from app.webhooks import MESSAGE_PREFIX

_TAG: Final = "Webhooks"
_ERRORS: Final = dict.fromkeys((401, 403, 429, 503), ErrorShown)
_OF_ONE: Final = {**_ERRORS, 404: ErrorShown}
_WITH_BODY: Final = dict.fromkeys((400, 413, 415, 422), ErrorShown)
_WEBHOOK: Final = PathPart(
    name="id", description="A webhook's `id`", example=ID, pattern=f"^{WEBHOOK_PREFIX}[0-9a-f]{{32}}$"
)
_DELIVERY: Final = PathPart(
    name="id",
    description="A delivery's `id`, which its receiver got as `webhook-id`",
    example=DELIVERY_ID,
    pattern=f"^{MESSAGE_PREFIX}[0-9a-f]{{32}}$",
)


def _described(name: str, method: Any, path: str, answers: dict[int, Any], **more: Any) -> Operation:
    return Operation(
        name=name, method=method, path=path, answers=answers, bearer=True, counted=True, tag=_TAG, **more
    )


OPERATIONS: Final = (
    _described(
        "createWebhook",
        "POST",
        "/v1/webhooks",
        {200: WebhookShown, 201: WebhookMade, **_ERRORS, **_WITH_BODY, 409: ErrorShown},
        summary="Be told of your jobs",
        description="Each event is posted to the URL, signed by Standard Webhooks 1.0.0, again and again for "
        "a day until it answers 2xx. The secret is in this answer and in no later one. Repeated for the same "
        "URL and form it answers 200 and only changes the events.",
        request=WebhookRequest,
        example={"url": "https://example.com/hooks/darkroom", "events": ["job.completed", "job.failed"]},
    ),
    _described(
        "listWebhooks",
        "GET",
        "/v1/webhooks",
        {200: WebhooksShown, **_ERRORS, 422: ErrorShown},
        summary="List webhooks",
        description="Newest first. With `scope=request` the URLs that requests of yours named.",
        query=WebhooksQuery,
    ),
    _described(
        "getWebhook",
        "GET",
        "/v1/webhooks/{id}",
        {200: WebhookShown, **_OF_ONE},
        summary="Get a webhook",
        description="Also says why it is disabled, or until when it is left alone after failures.",
        parts=(_WEBHOOK,),
    ),
    _described(
        "deleteWebhook",
        "DELETE",
        "/v1/webhooks/{id}",
        {204: None, **_OF_ONE},
        summary="Delete a webhook",
        description="Nothing is sent to it any more; what waits for it counts as failed.",
        parts=(_WEBHOOK,),
    ),
    _described(
        "enableWebhook",
        "POST",
        "/v1/webhooks/{id}/enable",
        {200: WebhookShown, **_OF_ONE},
        summary="Enable a webhook",
        description="After it answered 410 Gone; also ends a pause after failures. What failed meanwhile is "
        "not sent by itself: replay it.",
        parts=(_WEBHOOK,),
    ),
    _described(
        "rotateWebhookSecret",
        "POST",
        "/v1/webhooks/{id}/rotate",
        {200: WebhookMade, **_OF_ONE, **_WITH_BODY, 409: ErrorShown},
        summary="Get a new signing secret",
        description="Both secrets sign for `hours`, 24 by default, so that you can change the receiver in "
        "peace; 409 while an earlier secret still has its time, unless `hours` is 0. The URLs that requests "
        "named share one secret: rotating one rotates all of them.",
        parts=(_WEBHOOK,),
        request=RotateRequest,
        example={"hours": 24},
    ),
    _described(
        "testWebhook",
        "POST",
        "/v1/webhooks/{id}/test",
        {202: DeliveryShown, **_OF_ONE, 409: ErrorShown},
        summary="Send a test",
        description="Posts an event `test` at once, and only once; get the delivery to see what came of it.",
        parts=(_WEBHOOK,),
    ),
    _described(
        "listDeliveries",
        "GET",
        "/v1/webhooks/{id}/deliveries",
        {200: DeliveriesShown, **_OF_ONE, 422: ErrorShown},
        summary="List a webhook's deliveries",
        description="Newest first.",
        parts=(_WEBHOOK,),
        query=DeliveriesQuery,
    ),
    _described(
        "replayDeliveries",
        "POST",
        "/v1/webhooks/{id}/replay",
        {202: ReplayShown, **_OF_ONE, **_WITH_BODY, 409: ErrorShown},
        summary="Send the deliveries of a time again",
        description="Those of events in [since, until) that were delivered or given up, under the same ids.",
        parts=(_WEBHOOK,),
        request=ReplayRequest,
        example={"since": "2026-11-21T10:00:00Z", "until": "2026-11-21T12:00:00Z", "status": "failed"},
    ),
    _described(
        "getDelivery",
        "GET",
        "/v1/deliveries/{id}",
        {200: DeliveryDetail, **_OF_ONE},
        summary="Get a delivery",
        description="With what is sent, and when and why each try failed.",
        parts=(_DELIVERY,),
    ),
    _described(
        "replayDelivery",
        "POST",
        "/v1/deliveries/{id}/replay",
        {202: DeliveryShown, **_OF_ONE, 409: ErrorShown},
        summary="Send a delivery again",
        description="Under the same id and to the byte the same; 409 while it is still being tried.",
        parts=(_DELIVERY,),
    ),
)
