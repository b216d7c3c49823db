"""Webhooks (interim: being written by the engine's author, who must keep `endpoint_of_request`)."""

from uuid import UUID

from app.db import Database
from app.domain.webhook import Form
from app.vault import Vault


def endpoint_of_request(
    database: Database, vault: Vault, *, account_id: UUID, url: str, form: Form
) -> UUID:
    """Give the endpoint (scope `request`) for a URL that a request named; made when there is none."""
    raise NotImplementedError
