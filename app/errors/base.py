"""The root of the tree: what every error of ours says of itself."""

import inspect
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
