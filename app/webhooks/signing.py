"""Signatures of what we send: Standard Webhooks 1.0.0, and the header that Realm names beside it."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from app.domain.webhook import Form

MESSAGE_PREFIX: Final = "msg_"
_WHSEC: Final = "whsec_"
_RANDOM_BYTES: Final = 32
"""Standard Webhooks asks for 24 to 64."""


def new_secret() -> str:
    """Give a random signing secret as its owner sees it: whsec_ and standard base64 of 32 bytes.

    Not URL-safe base64: some verifiers split the secret at underscores.
    """
    return _WHSEC + base64.b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode()


def message_id(delivery_id: UUID) -> str:
    """Give the id that a receiver knows a delivery by, the same for every try."""
    return MESSAGE_PREFIX + delivery_id.hex


def headers(
    signing: Sequence[str], *, delivery_id: UUID, at: datetime, body: bytes, form: Form
) -> dict[str, str]:
    """Give the headers to send a body with.

    Args:
        signing: the live secrets, the current one first; each makes a signature, so that a receiver may know
            the old or the new one while they rotate.
        at: the time of this try; verifiers refuse one that is more than five minutes off.
        form: Realm's clients also get X-Webhook-Signature, for which Realm names no algorithm: base64 of the
            HMAC-SHA256 of the raw body with the current secret, whsec_ included, as the key.
    """
    name, moment = message_id(delivery_id), str(int(at.timestamp()))
    signed = f"{name}.{moment}.".encode() + body
    made = {
        "Content-Type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": moment,
        "webhook-signature": " ".join(f"v1,{_mac(_key(secret), signed)}" for secret in signing),
    }
    if form is Form.REALM:
        made["X-Webhook-Signature"] = _mac(signing[0].encode(), body)
    return made


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_WHSEC))


def _mac(key: bytes, content: bytes) -> str:
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
