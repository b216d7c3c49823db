"""A paid call to an upstream provider: its states, and what a new attempt makes of an old one's."""

from enum import StrEnum


class CallState(StrEnum):
    """Where a call stands."""

    SENDING = "sending"
    """Written before it is made; found by a later attempt it may or may not have arrived."""
    ACCEPTED = "accepted"
    """The provider took it and named it: it is asked for, never made again."""
    COMPLETED = "completed"
    REFUSED = "refused"
    """The provider would not do it, or was too busy: nothing was charged."""
    FAILED = "failed"
    """The provider took it and brought nothing."""
    UNKNOWN = "unknown"
    """Its answer got lost and the provider could not be asked: it may have been charged."""
