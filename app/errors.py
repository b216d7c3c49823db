"""Everything that can go wrong, drawn as a tree.

DarkroomError                      code, http_status, retryable, retry_after
├─ RequestError                    the caller must change the request; 4xx
│  ├─ MalformedBody                400
│  ├─ Unauthenticated              401
│  ├─ AccountDisabled              403
│  ├─ NotFound                     404
│  │  ├─ UnknownJob
│  │  ├─ UnknownOutput
│  │  ├─ UnknownModel
│  │  ├─ UnknownWebhook
│  │  └─ UnknownDelivery
│  ├─ MethodNotAllowed             405
│  ├─ Conflict                     409
│  │  ├─ AlreadyEnded
│  │  ├─ StillRunning
│  │  ├─ JobCancelled
│  │  ├─ TooManyWebhooks
│  │  ├─ WebhookDisabled
│  │  └─ StillDelivering
│  ├─ Gone                         410
│  ├─ BodyTooLarge                 413
│  ├─ UnsupportedMedia             415
│  ├─ RangeNotSatisfiable          416
│  ├─ InvalidFields                422
│  ├─ ForbiddenAddress             422: a customer's URL that may not be used
│  ├─ Unreachable                  422: a customer's URL that could not be had; status, may be retryable
│  ├─ TooLarge                     422: more lies at a customer's URL than is taken
│  ├─ IdempotencyMismatch          422
│  ├─ JobRefused                   422: the job that a caller waited for ended as it cannot be done
│  ├─ RateLimited                  429, retry_after
│  ├─ QueueFull                    429, retry_after
│  └─ NotOffered                   501: the API knows it, Darkroom does not do it
├─ Unavailable                     503: a part of ours is away; the same request works later
│  ├─ DatabaseDown
│  ├─ BrokerDown
│  ├─ StorageDown
│  ├─ SafetyDown
│  ├─ Busy
│  └─ StillWorking
├─ JobFailed                       the job that a caller waited for failed for no fault of the request
├─ ObjectMissing                   the store holds no such key
├─ ObjectCorrupt                   the store's bytes are not the ones the row promises
├─ BucketError                     a customer's own bucket did not take an object
│  ├─ BucketDown                   retryable
│  └─ BucketRefused
├─ ProviderError                   a provider did not deliver
│  ├─ ProviderDown                 retryable
│  └─ ProviderRefused
├─ AttemptEnded                    the attempt must stop; says nothing about the picture
│  ├─ Lost                         the row moved on without us
│  ├─ CancelRequested
│  ├─ DeadlineExceeded
│  └─ Draining
└─ SetupError                      this machine or its settings cannot run Darkroom; carries the remedy

A leaf's docstring is its default message, so a reader of a log sees the sentence a reader of the code sees.
Foreign exceptions never cross `db`, `storage`, `broker` or a provider: they are raised as one of these.
"""

import inspect
from dataclasses import dataclass
from datetime import timedelta


class DarkroomError(Exception):
    """Something went wrong that has no better name."""

    code = "internal_error"
    """Stable machine-readable name, lower snake case; dialects may re-spell it."""
    http_status = 500
    retryable = False
    """Whether the same attempt may succeed later without anybody changing anything."""
    internal = False
    """Whether `message` is for operators, as it may name servers of ours."""

    def __init__(self, message: str | None = None, *, retry_after: timedelta | None = None) -> None:
        self.message = message or self._sentence()
        self.retry_after = retry_after
        super().__init__(self.message)

    @property
    def public_message(self) -> str:
        """What a customer is told: `message`, or the plain sentence of an internal error."""
        return self._sentence() if self.internal else self.message

    @classmethod
    def _sentence(cls) -> str:
        return (inspect.getdoc(cls) or "").split("\n", 1)[0]


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


class Unavailable(DarkroomError):
    """A part of Darkroom is away; the same request will work later."""

    code = "unavailable"
    http_status = 503
    retryable = True
    internal = True


class DatabaseDown(Unavailable):
    """The database does not answer; the same request will work later."""

    code = "database_unavailable"


class BrokerDown(Unavailable):
    """The broker does not answer; jobs wait in Postgres and are released when it is back."""

    code = "broker_unavailable"


class StorageDown(Unavailable):
    """The object store does not answer; the same request will work later."""

    code = "storage_unavailable"


class SafetyDown(Unavailable):
    """The safety checker does not answer; the image is checked when it is back."""

    code = "safety_unavailable"


class Busy(Unavailable):
    """This process does as much of this at a time as it may; the same request works in a moment."""

    code = "busy"


class StillWorking(Unavailable):
    """It is still being made; send the same request again to go on waiting for it."""

    code = "still_working"


class JobFailed(DarkroomError):
    """It could not be made, for no fault of the request; try again later, or tell the operator."""

    code = "job_failed"


class ObjectMissing(DarkroomError):
    """The object store holds no object under this key."""

    code = "object_missing"
    internal = True


class ObjectCorrupt(DarkroomError):
    """The object store's bytes differ from the ones that were written."""

    code = "object_corrupt"
    retryable = True
    internal = True


class BucketError(DarkroomError):
    """The customer's bucket did not take an image.

    Its message is for the customer: it holds no key and nothing of our network.
    """

    code = "bucket_failed"

    def __init__(self, message: str | None = None, *, member: str = "endpoint_url") -> None:
        super().__init__(message)
        self.member = member
        """The one of the bucket's details that is most likely wrong."""


class BucketDown(BucketError):
    """The customer's bucket does not answer at the moment."""

    code = "bucket_unavailable"
    retryable = True


class BucketRefused(BucketError):
    """The customer's bucket does not let us write; its details need a change."""

    code = "bucket_refused"


class ProviderError(DarkroomError):
    """The provider did not deliver an image."""

    code = "provider_failed"


class ProviderDown(ProviderError):
    """The provider does not answer at the moment."""

    code = "provider_unavailable"
    retryable = True


class ProviderRefused(ProviderError):
    """The provider cannot fulfil this spec."""

    code = "provider_refused"


class AttemptEnded(DarkroomError):
    """This attempt must stop."""

    code = "attempt_ended"


class Lost(AttemptEnded):
    """The job's row moved on without this attempt; its result is dropped."""

    code = "lost"


class CancelRequested(AttemptEnded):
    """Somebody asked to cancel the job."""

    code = "cancelled"


class DeadlineExceeded(AttemptEnded):
    """The job ran longer than its deadline allows."""

    code = "timeout"


class Draining(AttemptEnded):
    """The worker is shutting down and gave the job back."""

    code = "drained"


class SetupError(DarkroomError):
    """Darkroom cannot run here as it is set up."""

    code = "setup"
    internal = True
