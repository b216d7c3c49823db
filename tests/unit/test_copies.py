"""When a copy into a customer's bucket is tried again, and what it is called there."""

from datetime import timedelta
from uuid import UUID

import pytest

from app.domain.copies import COPY_LEASE, COPY_PATIENCE, copy_wait, object_name
from app.domain.formats import ImageFormat

PREFIX = UUID("05c3260d-6a2e-4aa5-82f0-e952f2a5fa10")


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(0, 30), (1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (9, 3600), (10_000, 3600)],
)
def test_waits_double_from_half_a_minute_to_an_hour(attempts: int, seconds: int) -> None:
    assert copy_wait(attempts, chance=0.0) == timedelta(seconds=seconds)


def test_copies_that_failed_together_do_not_come_back_together() -> None:
    waits = [copy_wait(1, chance=chance) for chance in (0.0, 0.5, 0.999)]

    assert waits == sorted(set(waits))
    assert waits[-1] < timedelta(seconds=37.5)


def test_a_lease_is_over_long_before_a_copy_is_given_up() -> None:
    assert COPY_LEASE < timedelta(hours=1) < COPY_PATIENCE


@pytest.mark.parametrize(
    ("image_format", "as_text", "name"),
    [
        (ImageFormat.PNG, False, "05c3260d6a2e4aa582f0e952f2a5fa10-2.png"),
        (ImageFormat.JPEG, False, "05c3260d6a2e4aa582f0e952f2a5fa10-2.jpg"),
        (ImageFormat.PNG, True, "05c3260d6a2e4aa582f0e952f2a5fa10-2.base64"),
    ],
)
def test_an_object_is_called_like_our_own_output(image_format: ImageFormat, as_text: bool, name: str) -> None:  # noqa: FBT001 - a column of the table
    assert object_name(PREFIX, 2, image_format=image_format, as_text=as_text) == name
