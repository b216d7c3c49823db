"""Checkers as far as no model is needed: what is set up, what a service may answer, what is looked at."""

import gzip
import io
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import SafetyDown, SafetyMissing, SetupError
from app.settings import Settings
from tests.checkers import picture, settings_with
from tests.servers import strangers
from tests.servers.strangers import Script, Stranger, answers, by_path, dripping, head, redirect
from workers.safety import open_checker, verify
from workers.safety.views import squares, views

VIT: Mapping[str, Any] = {
    "architectures": ["ViTForImageClassification"],
    "id2label": {"0": "normal", "1": "nsfw"},
}
CLIP: Mapping[str, Any] = {"architectures": ["StableDiffusionSafetyChecker"]}
PROCESSOR = "preprocessor_config.json"
with_the_libraries = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "transformers", "diffusers")),
    reason="the extra gpu is not installed",
)


def folder(place: Path, configuration: Mapping[str, Any], *, without: str = "") -> Path:
    """A model's folder as far as it is looked at before the model is loaded."""
    place.mkdir(parents=True)
    files = {"config.json": json.dumps(configuration), PROCESSOR: "{}", "model.safetensors": ""}
    for name, text in files.items():
        if name != without:
            (place / name).write_text(text)
    return place


# Settings


def test_without_a_checker_nobody_looks() -> None:
    verify(settings_with())

    assert open_checker(settings_with()) is None


def test_where_a_check_is_required_and_nobody_looks_there_is_an_error_that_says_so() -> None:
    checker = open_checker(settings_with(safety_required=True))
    assert checker is not None

    with pytest.raises(SafetyMissing, match="Nobody looks at images") as caught:
        checker.flagged(picture("blue"))

    assert (caught.value.code, caught.value.retryable) == ("safety_unavailable", False)
    assert caught.value.public_message == caught.value.message


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"safety_url": "http://a/", "safety_folder": "b"}, "DARKROOM_SAFETY_URL and DARKROOM_SAFETY_FOLDER"),
        ({"safety_labels": "nsfw"}, "DARKROOM_SAFETY_LABELS.*DARKROOM_SAFETY_FOLDER, which is not set"),
        ({"safety_url": "http://a/", "safety_threshold": 0.9}, "DARKROOM_SAFETY_THRESHOLD.*not set"),
        ({"safety_folder": "b", "safety_threshold": 0}, "DARKROOM_SAFETY_THRESHOLD"),
        ({"safety_url": "checker.internal"}, "DARKROOM_SAFETY_URL"),
        ({"safety_url": ""}, "DARKROOM_SAFETY_URL"),
    ],
)
def test_settings_that_contradict_each_other_are_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(SetupError, match=named):
        settings_with(**given)


@pytest.mark.parametrize("url", ["http://a:b/", "https://[::1/", "http://?x"])
def test_an_address_that_can_be_none_is_found_at_start(url: str) -> None:
    with pytest.raises(SetupError, match="DARKROOM_SAFETY_URL"):
        verify(settings_with(safety_url=url))


# A folder, before its model is loaded


def found_wrong(settings: Settings) -> str:
    """What is said at start; the first image that must be checked would hear the same."""
    with pytest.raises(SetupError) as at_start:
        verify(settings)
    checker = open_checker(settings)
    assert checker is not None
    with pytest.raises(SafetyDown) as later:
        checker.flagged(picture("blue"))
    assert later.value.message == at_start.value.message
    return at_start.value.message


@pytest.mark.parametrize(
    ("configuration", "without", "said"),
    [
        (VIT, "config.json", "config.json cannot be read (No such file or directory)"),
        (VIT, "model.safetensors", "holds no weights as .safetensors"),
        (VIT, PROCESSOR, "holds no preprocessor_config.json"),
        (CLIP, PROCESSOR, "holds no preprocessor_config.json"),
        (
            {"architectures": ["BertModel"]},
            "",
            "is a BertModel; it must be a StableDiffusionSafetyChecker or",
        ),
        ({}, "", "is a model of no named architecture; it must be"),
        ({"architectures": "StableDiffusionSafetyChecker"}, "", "is a model of no named architecture"),
    ],
)
def test_a_folder_that_cannot_be_used_is_found_at_start(
    configuration: Mapping[str, Any], without: str, said: str, tmp_path: Path
) -> None:
    place = folder(tmp_path / "model", configuration, without=without)

    message = found_wrong(
        settings_with(safety_folder=place, safety_labels="nsfw" if configuration is VIT else "")
    )

    assert message.startswith("DARKROOM_SAFETY_FOLDER: ")
    assert said in message


@pytest.mark.parametrize("text", [b"[]", b"{", b"\xff\xfe", b""])
def test_a_configuration_that_is_none_is_found_at_start(text: bytes, tmp_path: Path) -> None:
    place = folder(tmp_path / "model", CLIP)
    (place / "config.json").write_bytes(text)

    assert "is no JSON object" in found_wrong(settings_with(safety_folder=place))


@pytest.mark.parametrize("labels", ["", "NSFW", "nsfw, gore"])
def test_labels_that_a_classifier_does_not_have_are_told_with_those_it_has(
    labels: str, tmp_path: Path
) -> None:
    place = folder(tmp_path / "model", VIT)

    message = found_wrong(settings_with(safety_folder=place, safety_labels=labels))

    assert message.startswith("DARKROOM_SAFETY_LABELS must be")
    assert message.endswith("It has normal, nsfw.")


@pytest.mark.parametrize("names", [[], ["nsfw"], {}, None])
def test_labels_without_names_have_those_that_transformers_gives_them(names: object, tmp_path: Path) -> None:
    place = folder(tmp_path / "model", {**VIT, "id2label": names})

    assert found_wrong(settings_with(safety_folder=place, safety_labels="nsfw")).endswith("LABEL_0, LABEL_1.")


def test_labels_that_would_flag_every_image_are_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "model", VIT)

    assert "every image" in found_wrong(settings_with(safety_folder=place, safety_labels="normal, nsfw"))


@pytest.mark.parametrize("given", [{"safety_labels": "nsfw"}, {"safety_threshold": 0.9}])
def test_a_safety_checker_takes_no_settings_of_classifiers(given: dict[str, Any], tmp_path: Path) -> None:
    place = folder(tmp_path / "model", CLIP)

    assert "are for classifiers" in found_wrong(settings_with(safety_folder=place, **given))


_PROGRAM = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
from app.errors import SetupError
from tests.checkers import settings_with
from workers import safety
import workers.finishing
settings = settings_with(safety_folder={folder!r})
try:
    safety.open_checker(settings)
    safety.verify(settings)
    print("verified", sorted({{"torch", "transformers", "diffusers"}} & set(sys.modules)))
except SetupError as error:
    print(error.message)
"""


def in_a_fresh_process(place: Path, *, absent: list[str]) -> str:
    program = _PROGRAM.format(absent=absent, folder=str(place))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_missing_libraries_are_told_with_the_command_that_installs_them(tmp_path: Path) -> None:
    place = folder(tmp_path / "model", CLIP)

    told = in_a_fresh_process(place, absent=["torch", "transformers", "diffusers"])

    assert told == ("DARKROOM_SAFETY_FOLDER: it needs torch and transformers and diffusers: make gpu.\n")


@with_the_libraries
def test_a_process_that_never_checks_loads_no_library(tmp_path: Path) -> None:

    assert in_a_fresh_process(folder(tmp_path / "model", CLIP), absent=[]) == "verified []\n"


@with_the_libraries
def test_a_whole_pipelines_folder_may_be_named_and_its_checkers(tmp_path: Path) -> None:
    folder(tmp_path / "safety_checker", CLIP, without=PROCESSOR)
    folder(tmp_path / "feature_extractor", {})

    verify(settings_with(safety_folder=tmp_path))
    verify(settings_with(safety_folder=tmp_path / "safety_checker"))


# A service over HTTP


def ask(script: Script, *, path: str = "/", image: Image.Image | None = None) -> tuple[bool, Stranger]:
    with strangers.stranger(script) as host:
        checker = open_checker(settings_with(safety_url=host.url + path))
        assert checker is not None
        return checker.flagged(image or picture("blue")), host


def verdict(body: bytes, *headers: str, status: str = "200 OK") -> Script:
    return answers(body, "Content-Type: application/json", *headers, status=status)


def test_a_service_gets_a_small_png_and_may_say_more_than_its_verdict() -> None:
    said = verdict(b'{"flagged": true, "scores": {"nsfw": 0.98}}', status="201 Created")

    flagged, host = ask(said, image=Image.new("RGB", (3000, 1000)))

    top, _, body = host.requests[0].partition(b"\r\n\r\n")
    assert flagged
    assert b"Content-Type: image/png" in top
    assert Image.open(io.BytesIO(body)).size == (768, 256)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"true",
        b"[]",
        b'{"flagged": 1}',
        b'{"flagged": "false"}',
        b'{"flagged": null}',
        b'{"safe": true}',
        b'{"flagged": fal',
        b"<html>",
        b"\xff",
        b"[" * 60_000,
    ],
)
def test_what_is_no_verdict_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(SafetyDown, match="must answer"):
        ask(verdict(body))


def test_an_answer_of_any_length_is_read_only_so_far() -> None:
    padded = b'{"flagged": false}' + b" " * 65_536

    for endless in (strangers.chunked, verdict(padded), dripping(head(), b"{" * 65_536, piece=b" " * 100)):
        with pytest.raises(SafetyDown, match="at most 65536 bytes"):
            ask(endless)


def test_a_packed_answer_is_not_unpacked() -> None:
    with pytest.raises(SafetyDown, match="must answer"):
        ask(verdict(gzip.compress(b'{"flagged": false}'), "Content-Encoding: gzip"))


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect"])
def test_a_redirect_is_not_followed(status: str) -> None:
    script = by_path(old=redirect("http://127.0.0.2:PORT/new", status), new=verdict(b'{"flagged": false}'))

    with strangers.stranger(script) as host:
        checker = open_checker(settings_with(safety_url=host.url + "/old"))
        assert checker is not None
        with pytest.raises(SafetyDown, match=f"answers with {status[:3]}"):
            checker.flagged(picture("blue"))

    assert len(host.requests) == 1


def test_a_service_says_when_to_ask_again() -> None:
    with pytest.raises(SafetyDown, match="answers with 503") as caught:
        ask(verdict(b"{}", "Retry-After: 7", status="503 Service Unavailable"))

    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == 7


def cut_short(_: Stranger, line: socket.socket) -> None:
    line.sendall(head("Content-Length: 100") + b'{"flagged": false}')


@pytest.mark.parametrize(
    "script",
    [strangers.says(b""), strangers.says(b"SSH-2.0\r\n"), cut_short],
    ids=["nothing", "ssh", "short"],
)
def test_a_host_that_does_not_speak_http_gives_no_verdict(script: Script) -> None:
    with pytest.raises(SafetyDown, match="does not answer"):
        ask(script)


@pytest.mark.parametrize(
    "script", [verdict(b"no"), verdict(b"", status="403 Forbidden"), strangers.says(b"")]
)
def test_no_secret_of_the_address_is_told(script: Script) -> None:
    with strangers.stranger(script) as host:
        message = told_of(host.url)

    assert b"Authorization: Basic " in host.requests[0]
    assert f"http://127.0.0.2:{host.port} " in message
    assert "hush" not in message


def told_of(place: str) -> str:
    """What is said of a service that gives no verdict, and whose address has a secret in every part."""
    url = place.replace("http://", "http://checker:hush@") + "/v1/hush?token=hush#hush"
    checker = open_checker(settings_with(safety_url=url))
    assert checker is not None
    with pytest.raises(SafetyDown) as caught:
        checker.flagged(picture("blue"))
    return caught.value.message


def test_no_secret_of_an_address_that_nobody_answers_at_is_told() -> None:
    assert told_of("http://127.0.0.1:1") == (
        "The safety service at http://127.0.0.1:1 does not answer (ConnectionError)."
    )


# What is looked at


def test_an_image_that_is_all_there_is_looked_at_once() -> None:
    for mode in ("RGB", "RGBA", "L", "P"):
        assert [view.mode for view in views(picture("red", mode=mode))] == ["RGB"]


def test_a_transparent_image_is_looked_at_as_it_shows_and_as_it_is_beneath() -> None:
    image = picture("red", (2, 1), "RGBA")
    image.putpixel((0, 0), (0, 0, 255, 0))

    shown, beneath = views(image)

    assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]
    assert [beneath.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 255), (255, 0, 0)]


@pytest.mark.parametrize(
    ("size", "number"),
    [
        ((1, 1), 1),
        ((512, 512), 1),
        ((640, 512), 1),
        ((768, 512), 2),
        ((1344, 768), 2),
        ((600, 200), 3),
        ((4096, 16), 4),
        ((16, 4096), 4),
    ],
)
def test_every_column_and_row_is_in_one_of_a_few_squares(size: tuple[int, int], number: int) -> None:
    width, height = size
    whole = squares(Image.new("RGB", size, "white"))
    assert [(square.size, square.mode) for square in whole] == [((512, 512), "RGB")] * number

    for place in {0, max(size) // 3, max(size) // 2, max(size) - 1}:
        marked = Image.new("RGB", size)
        thick = max(1, max(size) // 100)
        start = min(place, max(size) - thick)
        marked.paste(
            "white",
            (start, 0, start + thick, height) if width >= height else (0, start, width, start + thick),
        )
        assert max(int(np.asarray(square).max()) for square in squares(marked)) > 100, place
