"""What everybody who looks at images promises, see workers/safety; each runs through all of it.

Each candidate takes red for what must not be shown, and everything else for harmless.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import SafetyDown
from tests import checkers
from tests.checkers import BAD, GOOD, picture, settings_with
from tests.servers import strangers
from workers.safety import Checker, open_checker, verify


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checker, and one of the same kind that cannot look."""

    checker: Checker
    broken: Checker


@contextmanager
def over_http(_folder: Path) -> Iterator[Candidate]:
    with strangers.stranger(checkers.service()) as service:
        yield Candidate(
            checker=opened(safety_url=service.url), broken=opened(safety_url="http://127.0.0.1:1")
        )


@contextmanager
def of_diffusers(folder: Path) -> Iterator[Candidate]:
    pytest.importorskip("diffusers", reason="the extra gpu is not installed")
    whole = checkers.safety_checker(folder / "whole")
    torn = checkers.copied(whole, folder / "torn", weights=b"torn")
    yield Candidate(checker=opened(safety_folder=whole), broken=opened(safety_folder=torn))


@contextmanager
def of_transformers(folder: Path) -> Iterator[Candidate]:
    pytest.importorskip("transformers", reason="the extra gpu is not installed")
    whole = checkers.classifier(folder / "whole")
    torn = checkers.copied(whole, folder / "torn", weights=b"torn")
    yield Candidate(
        checker=opened(safety_folder=whole, safety_labels="nsfw"),
        broken=opened(safety_folder=torn, safety_labels="nsfw"),
    )


CANDIDATES: dict[str, Callable[[Path], AbstractContextManager[Candidate]]] = {
    "http": over_http,
    "diffusers": of_diffusers,
    "classification": of_transformers,
}


@pytest.fixture(params=CANDIDATES, scope="module")
def candidate(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Candidate]:
    with CANDIDATES[request.param](tmp_path_factory.mktemp("checker")) as made:
        yield made


@pytest.fixture
def checker(candidate: Candidate) -> Checker:
    return candidate.checker


def opened(**changes: object) -> Checker:
    settings = settings_with(**changes)
    verify(settings)
    found = open_checker(settings)
    assert found is not None
    return found


def test_what_must_not_be_shown_is_flagged_and_what_may_be_is_not(checker: Checker) -> None:
    assert checker.flagged(picture(BAD)) is True
    for colour in checkers.HARMLESS:
        assert checker.flagged(picture(colour)) is False, colour


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "RGBX"])
def test_the_mode_of_an_image_makes_no_difference(checker: Checker, mode: str) -> None:
    assert checker.flagged(picture(BAD, mode=mode)) is True
    assert checker.flagged(picture(GOOD, mode=mode)) is False


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBa", "I", "F", "I;16", "PA"])
def test_an_image_of_any_mode_gets_a_verdict(checker: Checker, mode: str) -> None:
    assert checker.flagged(Image.new(mode, (20, 10))) in {True, False}


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 3), (3, 3), (3, 1), (4096, 16), (16, 4096), (63, 50), (1500, 900)]
)
def test_the_size_of_an_image_makes_no_difference(checker: Checker, size: tuple[int, int]) -> None:
    assert checker.flagged(picture(BAD, size)) is True
    assert checker.flagged(picture(GOOD, size)) is False


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_no_part_of_a_long_image_goes_unseen(checker: Checker, part: int) -> None:
    image = picture(GOOD, (256, 64))
    image.paste(BAD, (part * 64, 0, part * 64 + 64, 64))

    assert checker.flagged(image) is True
    assert checker.flagged(image.transpose(Image.Transpose.ROTATE_90)) is True


def test_what_lies_beneath_transparency_is_looked_at(checker: Checker) -> None:
    hidden = picture(BAD, mode="RGBA")
    hidden.putalpha(0)
    harmless = picture(GOOD, mode="RGBA")
    harmless.putalpha(0)

    assert checker.flagged(hidden) is True
    assert checker.flagged(harmless) is False


def test_an_image_is_left_as_it_was(checker: Checker) -> None:
    grain = np.random.default_rng(1).integers(0, 256, (90, 1000, 4), np.uint8)
    for mode in ("RGBA", "RGB", "L"):
        image = Image.fromarray(grain).convert(mode)
        before = (image.mode, image.size, image.tobytes())
        checker.flagged(image)
        assert (image.mode, image.size, image.tobytes()) == before


def test_several_threads_get_each_its_own_verdict(checker: Checker) -> None:
    colours = [BAD, GOOD, BAD, GOOD]
    found: list[list[bool]] = [[] for _ in colours]
    together = threading.Barrier(len(colours))

    def look(index: int) -> None:
        together.wait(timeout=30)
        found[index] = [checker.flagged(picture(colours[index])) for _ in range(5)]

    threads = [threading.Thread(target=look, args=(index,)) for index in range(len(colours))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert found == [[colour == BAD] * 5 for colour in colours]


def test_without_a_look_there_is_no_verdict(candidate: Candidate) -> None:
    for colour in (BAD, GOOD):
        with pytest.raises(SafetyDown) as caught:
            candidate.broken.flagged(picture(colour))
        assert caught.value.retryable
        assert caught.value.code == "safety_unavailable"
        assert "/" not in caught.value.public_message
