"""Accounts at upstream providers: a section of the catalogue. Their keys are settings, never written here."""

from datetime import timedelta
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.domain.profiles import Name

LOCAL: Final = frozenset({"diffusers", "pillow", "sketch"})
"""Providers of our own, whose names no upstream may take."""


def queue_of(upstream: str) -> str:
    """Give the name of the queue of an upstream's jobs."""
    return f"provider.{upstream}"


def _reachable(base_url: str) -> str:
    parts = urlsplit(base_url)  # ValueError for brackets that do not match
    if parts.hostname is None or parts.port == 0:  # ValueError for a port beyond the last
        raise ValueError("it has no host, or an impossible port")
    if parts.hostname == "localhost" or parts.hostname.endswith(".localhost"):
        # A name is never let into the machine's own loopback, whoever wrote it.
        raise ValueError("write 127.0.0.1 or [::1] for localhost")
    return base_url


class Upstream(BaseModel):
    """An account at a provider that draws over HTTP.

    Attributes:
        name: what targets and DARKROOM_UPSTREAM_KEYS call it, and what `jobs.provider` says.
        api: whose words it speaks; `openai` is any server with OpenAI's images API.
        base_url: as its clients have it: https://modelslab.com/api, https://api.img-processing.com/v1,
            https://api.realm.ai/v1, https://api.openai.com/v1. This machine is 127.0.0.1 or [::1].
        concurrency: jobs that may be with it at a time, over all workers.
        calls_per_minute: paid calls, over all workers; None: as many as it takes.
        timeout: for one HTTP exchange, in seconds.
        longest_wait: from the call until its image must be there, in seconds.
        ambiguous: what is done where the answer to a paid call got lost and the provider cannot be asked:
            `retry` buys again, at most as often as the job has attempts; `fail` never pays twice and ends
            the job with `upstream_ambiguous`.
        idempotent: whether it honours Idempotency-Key on paid calls, as a Darkroom does; then a repeated
            call is not a second one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    api: Literal["modelslab", "imgprocessing", "realm", "openai"]
    base_url: Annotated[
        str, Field(pattern=r"^https?://[^\s?#@]+$", max_length=400), AfterValidator(_reachable)
    ]
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 4
    calls_per_minute: Annotated[int | None, Field(ge=1)] = None
    timeout: Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(minutes=10))] = timedelta(seconds=60)
    longest_wait: Annotated[timedelta, Field(gt=timedelta(0))] = timedelta(minutes=5)
    ambiguous: Literal["retry", "fail"] = "retry"
    idempotent: bool = False

    @property
    def queue(self) -> str:
        """Its queue: one for each upstream, so that one number tells what it owes us."""
        return queue_of(self.name)
