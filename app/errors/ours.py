"""What is no fault of the request: a part of ours away, a provider, a bucket, an attempt that must stop."""

from app.errors.base import DarkroomError


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


class SafetyMissing(SafetyDown):
    """Nobody looks at images on this installation, and it makes none unchecked that were to be checked."""

    retryable = False
    internal = False


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
    charged = True
    """Whether the attempt counts against the job; not where the provider is unwell for everybody."""


class ProviderDown(ProviderError):
    """The provider does not answer at the moment."""

    code = "provider_unavailable"
    retryable = True


class ProviderBusy(ProviderDown):
    """The provider takes no more calls at the moment."""

    code = "provider_busy"
    charged = False


class ProviderDenied(ProviderDown):
    """The provider does not let this installation in; the operator must see to the account there."""

    code = "provider_denied"
    internal = True


class ProviderRefused(ProviderError):
    """The provider cannot fulfil this spec."""

    code = "provider_refused"


class ContentRefused(ProviderRefused):
    """The provider will not draw this content."""

    code = "content_refused"


class UpstreamAmbiguous(ProviderError):
    """Whether the provider took the job is not known, and buying it twice was ruled out."""

    code = "upstream_ambiguous"


class ModelUnavailable(ProviderError):
    """The model cannot be loaded on this server; the operator must see to its files."""

    code = "model_unavailable"
    internal = True


class GpuOutOfMemory(ProviderError):
    """The picture needs more GPU memory than there is; ask for a smaller size."""

    code = "gpu_out_of_memory"


class DeviceBroken(ProviderDown):
    """The GPU failed; the picture is drawn again when it is back."""

    code = "device_broken"
    internal = True


class Deferred(ProviderError):
    """The provider's rate limit lets this job go only later."""

    code = "deferred"
    retryable = True
    charged = False


class Unservable(DarkroomError):
    """Nobody who could draw this model is there."""

    code = "unservable"
    http_status = 503


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
