"""The three addresses under which ModelsLab offers the same operations, and where its own pages differ."""

from dataclasses import dataclass
from typing import Final, Literal

from app.domain.spec import CensorKind, Operation

Verb = Literal["text2img", "img2img", "inpaint"]
VERBS: Final[dict[Verb, Operation]] = {
    "text2img": Operation.TEXT_TO_IMAGE,
    "img2img": Operation.IMAGE_TO_IMAGE,
    "inpaint": Operation.INPAINT,
}
ROOT: Final = "/api/"
"""Below it nobody else has an address."""
ENTERPRISE_ROOT: Final = "/api/v1/enterprise/"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One of the addresses.

    Attributes:
        name: for our own use.
        prefix: what its addresses begin with.
        enhances: operations whose prompts are enhanced unless the request says no.
        checks: whether a configured safety checker looks unless the request says no.
        censor: what stands in place of an unsafe image.
        is_public: whether its answers have `proxy_links`.
        is_community: whether `model_id` counts, and answers have `messege` and `webhook_status`.
    """

    name: str
    prefix: str
    enhances: frozenset[Operation] = frozenset()
    checks: bool = False
    censor: CensorKind = "black"
    is_public: bool = True
    is_community: bool = False


ENTERPRISE: Final = Family(
    name="enterprise",
    prefix=f"{ENTERPRISE_ROOT}realtime/",
    enhances=frozenset({Operation.TEXT_TO_IMAGE, Operation.INPAINT}),
    checks=True,
    is_public=False,
)
REALTIME: Final = Family(name="realtime", prefix="/api/v6/realtime/")
IMAGES: Final = Family(
    name="images", prefix="/api/v6/images/", censor="sensitive_content_text", is_community=True
)
FAMILIES: Final = (ENTERPRISE, REALTIME, IMAGES)


def family_of(path: str) -> Family:
    """Give the family that an address belongs to; the enterprise one where none has it."""
    return next((family for family in FAMILIES if path.startswith(family.prefix)), ENTERPRISE)
