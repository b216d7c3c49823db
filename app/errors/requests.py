"""What the caller must change; 4xx, but for what Darkroom does not do at all."""

from dataclasses import dataclass
from datetime import timedelta

from app.errors.base import DarkroomError


class RequestError(DarkroomError):
    """The request cannot be fulfilled as it is."""

    code = "invalid_request"
    http_status = 400


class MalformedBody(RequestError):
    """The body is not valid JSON; send one JSON object in UTF-8."""

    code = "malformed_body"


class Unauthenticated(RequestError):
    """No valid API key was sent; put one into the X-API-Key header."""

    code = "unauthenticated"
    http_status = 401


class AccountDisabled(RequestError):
    """This account is disabled; ask your Darkroom operator."""

    code = "account_disabled"
    http_status = 403


class NotFound(RequestError):
    """There is nothing at this address."""

    code = "not_found"
    http_status = 404


class UnknownJob(NotFound):
    """No job of yours has this id."""

    code = "job_not_found"


class UnknownOutput(NotFound):
    """No output has this id."""

    code = "output_not_found"


class UnknownModel(NotFound):
    """No model has this id; GET /v1/models lists them."""

    code = "model_not_found"


class UnknownWebhook(NotFound):
    """No webhook of yours has this id; GET /v1/webhooks lists them."""

    code = "webhook_not_found"


class UnknownDelivery(NotFound):
    """No delivery of yours has this id."""

    code = "delivery_not_found"


class MethodNotAllowed(RequestError):
    """This address does not answer that method."""

    code = "method_not_allowed"
    http_status = 405


class Conflict(RequestError):
    """The thing asked about is in no state for that."""

    code = "conflict"
    http_status = 409


class AlreadyEnded(Conflict):
    """This job has ended already."""

    code = "already_ended"


class StillRunning(Conflict):
    """This job has not ended; wait for it, or cancel it first."""

    code = "still_running"


class TooManyWebhooks(Conflict):
    """This account has as many webhooks as it may; delete one."""

    code = "too_many_webhooks"


class WebhookDisabled(Conflict):
    """This webhook is disabled; POST …/enable first."""

    code = "webhook_disabled"


class StillDelivering(Conflict):
    """This delivery is still being tried; only one that was delivered or given up can be replayed."""

    code = "still_delivering"


class StillRotating(Conflict):
    """The secret of an earlier rotation still signs, as was promised; wait, or rotate with `hours` 0."""

    code = "still_rotating"


class JobCancelled(Conflict):
    """The job that was to make this was cancelled."""

    code = "job_cancelled"


class Gone(RequestError):
    """This output has expired and was deleted."""

    code = "gone"
    http_status = 410


class BodyTooLarge(RequestError):
    """The request body is larger than this address accepts."""

    code = "body_too_large"
    http_status = 413


class UnsupportedMedia(RequestError):
    """This address does not read that Content-Type."""

    code = "unsupported_media_type"
    http_status = 415


class RangeNotSatisfiable(RequestError):
    """The requested byte range lies outside the output."""

    code = "range_not_satisfiable"
    http_status = 416


@dataclass(frozen=True, kw_only=True)
class FieldProblem:
    """One field that cannot stay as it is: its public name, and a sentence that names the remedy."""

    field: str
    message: str


class InvalidFields(RequestError):
    """Some fields have values that cannot be used."""

    code = "invalid_fields"
    http_status = 422

    def __init__(self, *problems: FieldProblem) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems) or None)


class ForbiddenAddress(RequestError):
    """This URL's host has no address that may be used; check its name, or ask your Darkroom operator.

    One sentence for a name that does not exist and for one of our own network, so that nobody learns which
    names that has. `retryable` when the name had no address at the time.
    """

    code = "forbidden_address"
    http_status = 422

    def __init__(self, message: str | None = None, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class Unreachable(RequestError):
    """The URL's host did not answer as it should; check that the URL works from the Internet.

    `status` is the HTTP status it answered with, None where it did not.
    """

    code = "unreachable_address"
    http_status = 422

    def __init__(
        self, message: str | None = None, *, status: int | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.retryable = status, retryable


class TooLarge(RequestError):
    """The URL's host sends more than is taken."""

    code = "too_large"
    http_status = 422


class IdempotencyMismatch(RequestError):
    """This Idempotency-Key was used before with another body; use a fresh key for a new request."""

    code = "idempotency_mismatch"
    http_status = 422


class JobRefused(RequestError):
    """This cannot be made as it was asked for."""

    code = "job_refused"
    http_status = 422


class RateLimited(RequestError):
    """Too many requests with this API key; wait for the reset and send the request again."""

    code = "rate_limited"
    http_status = 429


class QueueFull(RequestError):
    """Too many unfinished jobs on this account; wait until some have ended."""

    code = "queue_full"
    http_status = 429

    def __init__(
        self, message: str | None = None, *, retry_after: timedelta | None = None, limit: int = 0
    ) -> None:
        self.limit = limit
        super().__init__(message, retry_after=retry_after)


class NotOffered(RequestError):
    """Darkroom does not offer this operation."""

    code = "not_offered"
    http_status = 501
