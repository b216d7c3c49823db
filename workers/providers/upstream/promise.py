"""What an adapter is: one vendor's wire form, and nothing else. `UpstreamProvider` does the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from app.domain.spec import JobSpec
from app.errors import ProviderDown
from workers.providers.base import Inputs


class AnswerLost(ProviderDown):
    """The provider may have taken the call: the connection broke, or a gateway answered in its place."""

    code = "answer_lost"


class CallLost(ProviderDown):
    """The provider took the call and brings nothing."""

    code = "call_lost"


@dataclass(frozen=True, kw_only=True)
class Order:
    """One paid call to be made: some of a job's images.

    Attributes:
        index: position of its first image within the job, from 0; image i has the seed `spec.seed_of(i)`.
        images: how many, at most the capability's `images_per_call`.
        reference: our word for the call, at most 30 letters, digits and hyphens: the same for each attempt
            until a call has failed, and no other job has it. Sent wherever the vendor takes one.
        model: the provider's own name for the model.
        honours: parameters that have an effect there, by the target's capability.
    """

    spec: JobSpec
    inputs: Inputs
    index: int
    images: int
    reference: str
    model: str
    honours: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Found:
    """An image as the vendor hands it over: by URL, or as the bytes of a file.

    Attributes:
        seed: the one the vendor says it used; None where it says nothing.
    """

    url: str | None = None
    data: bytes | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the vendor answered to a call, or to being asked about one.

    Attributes:
        upstream_id: its word for the call; None where it has none and the images are here.
        detail: what else `ask` needs, JSON values; kept with the id.
        found: the images; None: not yet.
        wait: seconds it takes until then, by its own estimate.
    """

    upstream_id: str | None = None
    detail: Mapping[str, object] = field(default_factory=dict)
    found: tuple[Found, ...] | None = None
    wait: float = 1.0


class Adapter(Protocol):
    """Speaks one vendor's API. Holds no state but its HTTP session; several threads use it at a time.

    Every method raises, of `app.errors`: ProviderBusy (429, with `retry_after`), ProviderDown (5xx, no
    connection, an answer that is none), ProviderDenied (key or credit), ContentRefused, ProviderRefused.
    """

    def submit(self, order: Order) -> Receipt:
        """Make a paid call.

        Raises:
            AnswerLost: it was sent, and whether it was taken is unknown. Every other error means that it was
                not taken.
        """
        ...

    def ask(self, upstream_id: str, detail: Mapping[str, object]) -> Receipt:
        """Ask for the images of a call that was taken; costs nothing.

        Raises:
            CallLost: the vendor knows no such call (any more), or it ended without images.
        """
        ...

    def cancel(self, upstream_id: str, detail: Mapping[str, object]) -> None:
        """Have the vendor stop, or delete what it made; does nothing where it cannot."""
        ...


@runtime_checkable
class FindingAdapter(Adapter, Protocol):
    """Of a vendor that can be asked for a call by our reference: there none is ever bought twice."""

    def find(self, order: Order) -> Receipt | None:
        """Look for a call by our reference, whose answer got lost; None: the vendor knows none, so far."""
        ...
