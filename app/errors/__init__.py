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
│  │  ├─ StillDelivering
│  │  └─ StillRotating
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
│  │  └─ SafetyMissing             not retryable: no checker is configured, and one is required
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
│  │  ├─ ProviderBusy              retry_after; not the job's fault, so not charged to it
│  │  ├─ ProviderDenied            key or credit: the operator's to mend
│  │  ├─ AnswerLost                a paid call was sent, and whether it was taken is unknown
│  │  ├─ CallLost                  it was taken, and brings nothing
│  │  └─ DeviceBroken              our GPU; its process ends
│  ├─ ProviderRefused              another target may be able to
│  │  └─ ContentRefused            nobody else is asked
│  ├─ ModelUnavailable             its files are missing or broken
│  ├─ GpuOutOfMemory               after everything was tried
│  ├─ UpstreamAmbiguous            paid or not: unknown
│  └─ Deferred                     our own rate limit for the provider; retry_after, not charged
├─ Unservable                      503: no live worker or provider can draw the model
├─ AttemptEnded                    the attempt must stop; says nothing about the picture
│  ├─ Lost                         the row moved on without us
│  ├─ CancelRequested
│  ├─ DeadlineExceeded
│  └─ Draining
└─ SetupError                      this machine or its settings cannot run Darkroom; carries the remedy

A leaf's docstring is its default message, so a reader of a log sees the sentence a reader of the code sees.
Foreign exceptions never cross `db`, `storage`, `broker` or a provider: they are raised as one of these.
"""

from app.errors.base import DarkroomError
from app.errors.ours import (
    AttemptEnded,
    BrokerDown,
    BucketDown,
    BucketError,
    BucketRefused,
    Busy,
    CancelRequested,
    ContentRefused,
    DatabaseDown,
    DeadlineExceeded,
    Deferred,
    DeviceBroken,
    Draining,
    GpuOutOfMemory,
    JobFailed,
    Lost,
    ModelUnavailable,
    ObjectCorrupt,
    ObjectMissing,
    ProviderBusy,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderRefused,
    SafetyDown,
    SafetyMissing,
    SetupError,
    StillWorking,
    StorageDown,
    Unavailable,
    Unservable,
    UpstreamAmbiguous,
)
from app.errors.requests import (
    AccountDisabled,
    AlreadyEnded,
    BodyTooLarge,
    Conflict,
    FieldProblem,
    ForbiddenAddress,
    Gone,
    IdempotencyMismatch,
    InvalidFields,
    JobCancelled,
    JobRefused,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    NotOffered,
    QueueFull,
    RangeNotSatisfiable,
    RateLimited,
    RequestError,
    StillDelivering,
    StillRotating,
    StillRunning,
    TooLarge,
    TooManyWebhooks,
    Unauthenticated,
    UnknownDelivery,
    UnknownJob,
    UnknownModel,
    UnknownOutput,
    UnknownWebhook,
    Unreachable,
    UnsupportedMedia,
    WebhookDisabled,
)

__all__ = [
    "AccountDisabled",
    "AlreadyEnded",
    "AttemptEnded",
    "BodyTooLarge",
    "BrokerDown",
    "BucketDown",
    "BucketError",
    "BucketRefused",
    "Busy",
    "CancelRequested",
    "Conflict",
    "ContentRefused",
    "DarkroomError",
    "DatabaseDown",
    "DeadlineExceeded",
    "Deferred",
    "DeviceBroken",
    "Draining",
    "FieldProblem",
    "ForbiddenAddress",
    "Gone",
    "GpuOutOfMemory",
    "IdempotencyMismatch",
    "InvalidFields",
    "JobCancelled",
    "JobFailed",
    "JobRefused",
    "Lost",
    "MalformedBody",
    "MethodNotAllowed",
    "ModelUnavailable",
    "NotFound",
    "NotOffered",
    "ObjectCorrupt",
    "ObjectMissing",
    "ProviderBusy",
    "ProviderDenied",
    "ProviderDown",
    "ProviderError",
    "ProviderRefused",
    "QueueFull",
    "RangeNotSatisfiable",
    "RateLimited",
    "RequestError",
    "SafetyDown",
    "SafetyMissing",
    "SetupError",
    "StillDelivering",
    "StillRotating",
    "StillRunning",
    "StillWorking",
    "StorageDown",
    "TooLarge",
    "TooManyWebhooks",
    "Unauthenticated",
    "Unavailable",
    "UnknownDelivery",
    "UnknownJob",
    "UnknownModel",
    "UnknownOutput",
    "UnknownWebhook",
    "Unreachable",
    "Unservable",
    "UnsupportedMedia",
    "UpstreamAmbiguous",
    "WebhookDisabled",
]
