"""What becomes of an account's breaker and pauses when it answers, or does not."""

from app.db import Database, upstreams
from app.errors import ProviderDenied, ProviderDown, ProviderError, ProviderRefused
from app.log import get_logger

log = get_logger(__name__)


class Health:
    """Writes down how one upstream is doing; threads share it."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    def failed(self, error: ProviderError) -> None:
        """Count what an order failed with; the job is not charged for it where the provider is unwell."""
        if isinstance(error, ProviderRefused):
            self.succeeded()  # it answered, and said what is wrong with this job
        if not isinstance(error, ProviderDown):
            return
        with self._database.autocommit() as tx:
            failed = upstreams.failed(
                tx,
                self._name,
                reason=error.message,
                pause=error.retry_after,
                at_once=isinstance(error, ProviderDenied),
            )
        if failed.opened:
            log.warning("breaker_opened", upstream=self._name, reason=error.message)
        if failed.unwell:
            # It is the provider that is not well, whatever job meets it.
            error.charged = False

    def succeeded(self) -> None:
        """Count an answer: the breaker closes."""
        with self._database.autocommit() as tx:
            upstreams.succeeded(tx, self._name)
