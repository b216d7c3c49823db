"""Jobs that are drawn by accounts at a fake upstream: the catalogue, what is ordered, and what was paid."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from pydantic import SecretStr

from app.domain.spec import Operation
from app.domain.upstreams import queue_of
from app.settings import Settings
from app.wish import Wish
from tests import rows
from tests.faults.house import House
from tests.upstreams import Upstream

COST = "0.01"
_PREFIX = {"modelslab": "/api", "imgprocessing": "/v1", "realm": "/v1", "openai": "/v1"}
_MODEL = {
    "modelslab": "v6/realtime",
    "imgprocessing": "sdxl",
    "realm": "mod_landscape",
    "openai": "painter",
}
_SIDE = {"imgprocessing": 1024}


def side_of(vendor: str) -> int:
    """Width and height of what is ordered of a vendor: small, where it draws small images."""
    return _SIDE.get(vendor, 64)


def dealing_with(
    fake: Upstream, accounts: Sequence[str], settings: Settings, *, folder: Path, **about: Any
) -> Settings:
    """Give settings with a catalogue of accounts at this fake, each with one model of the same name.

    Args:
        about: more of each account, as the catalogue has it.
    """
    file = folder / "models.yaml"
    models = [_model(name, fake.vendor) for name in accounts]
    upstreams = [
        {"name": name, "api": fake.vendor, "base_url": fake.base_url + _PREFIX[fake.vendor], **about}
        for name in accounts
    ]
    file.write_text(yaml.safe_dump({"models": models, "upstreams": upstreams}))
    return settings.model_copy(
        update={
            "models_file": file,
            "upstream_keys": SecretStr(",".join(f"{name}={fake.key}" for name in accounts)),
            "upstream_allow": ("127.0.0.1",),
            # A worker that dies is missed soon; a live one on a busy machine is not.
            "lease": timedelta(seconds=3),
        }
    )


def _model(name: str, vendor: str) -> dict[str, Any]:
    side = side_of(vendor)
    return {
        "id": name,
        "name": f"Drawn by {vendor}",
        "created_at": "2026-11-25T00:00:00Z",
        "operations": ["text_to_image"],
        "width": side,
        "height": side,
        "size": {"min": 64, "max": 1024, "multiple": 8, "max_pixels": 1048576},
        "max_images": 4,
        "defaults": {"num_inference_steps": 20, "guidance_scale": 7.5, "strength": 0.7},
        "targets": [{"provider": name, "model": _MODEL[vendor], "cost_per_image": COST}],
    }


def order(house: House, model: str, *, side: int, prompt: str, images: int = 1) -> UUID:
    """Have a job accepted through the product's own intake; the fake's charges show its prompt."""
    wish = Wish(
        operation=Operation.TEXT_TO_IMAGE,
        model=model,
        prompt=prompt,
        num_images=images,
        width=side,
        height=side,
        fields={},
    )
    job_id = house.intake.submit(wish, account_id=house.account.id, dialect="realm").job_id
    house.accepted.append(job_id)
    return job_id


def queues(accounts: Sequence[str]) -> str:
    """Give the queues of these accounts, as one worker that serves them all is told of them."""
    return ",".join(queue_of(name) for name in accounts)


def calls(house: House, job_id: UUID) -> list[rows.Look]:
    """Give the paid calls that were written down for a job, in order."""
    return rows.query(
        house.database,
        "SELECT * FROM upstream_calls WHERE job_id = %(id)s ORDER BY created_at, id",
        id=job_id,
    )


def paid(fake: Upstream) -> Counter[str]:
    """Give how many generations the vendor bills, by prompt."""
    return Counter(charge.prompt for charge in fake.charged)
