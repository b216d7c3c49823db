"""Telling customers: endpoints, what a webhook says, and its signature. Posting it is for the workers."""

from app.webhooks.bodies import Told, render
from app.webhooks.endpoints import (
    MAX_ENDPOINTS,
    Registered,
    delete,
    enable,
    endpoint_of_request,
    find,
    find_delivery,
    register,
    replay,
    replay_between,
    rotate,
    send_test,
)
from app.webhooks.signing import MESSAGE_PREFIX, headers, message_id, new_secret

__all__ = [
    "MAX_ENDPOINTS",
    "MESSAGE_PREFIX",
    "Registered",
    "Told",
    "delete",
    "enable",
    "endpoint_of_request",
    "find",
    "find_delivery",
    "headers",
    "message_id",
    "new_secret",
    "register",
    "render",
    "replay",
    "replay_between",
    "rotate",
    "send_test",
]
