import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from app.domain.spec import JobSpec, StoredImage
from app.errors import ProviderRefused
from workers.providers.base import Attempt, Inputs
from workers.providers.sketch import Sketch
from workers.providers.sketch.colour import from_lab, mix, rgb, to_lab
from workers.providers.sketch.drawing import PLACES, strokes
from workers.providers.sketch.field import blur
from workers.providers.sketch.palette import HOURS, LANDS
from workers.providers.sketch.reading import read
from workers.providers.sketch.scene import Scene, understand
from workers.providers.sketch.shapes import FIGURES
from workers.providers.sketch.vocabulary import WORDS

SILENT = Attempt(check=lambda: None, progress=lambda _: None)
WITHOUT_FIGURE = {"portrait", "maiden", "lantern"}


def spec_of(prompt: str, **changes: object) -> JobSpec:
    fields = {
        "operation": "text_to_image",
        "model": "sketch",
        "prompt": prompt,
        "width": 48,
        "height": 40,
        "num_inference_steps": 8,
        "guidance_scale": 7.5,
        "seed": 5,
    }
    return JobSpec.model_validate(fields | changes)


def drawn(prompt: str, **changes: object) -> np.ndarray:
    (picture,) = Sketch().generate(spec_of(prompt, **changes), Inputs(), SILENT)
    return np.asarray(picture.image, np.int16)


def scene_of(prompt: str, negative_prompt: str = "", *, seed: int = 5) -> Scene:
    return understand(
        prompt=prompt,
        negative_prompt=negative_prompt,
        key=hashlib.blake2b(f"{seed} {prompt}".encode(), digest_size=32).digest(),
        steps=8,
        guidance_scale=7.5,
    )


# Reading


def test_places_lie_from_back_to_front_whatever_the_order_of_words() -> None:
    assert scene_of("a lake before the city and snowy mountains").places == ("mountains", "city", "water")


def test_plurals_phrases_and_capitals_are_understood() -> None:
    scene = scene_of("Northern Lights over Foxes, cities and CHERRY BLOSSOMS in Black and White")
    assert "aurora" in scene.heaven
    assert scene.subjects == ("fox",)
    assert scene.places == ("city",)
    assert scene.season == "spring"
    assert "mono" in scene.styles


def test_a_colour_before_a_thing_is_that_things_alone() -> None:
    reading = read("a red balloon over green hills under a pink sky")
    assert np.allclose(reading.colours["balloon"], rgb("c8102e"))
    assert np.allclose(reading.colours["hills"], rgb("3c9d4e"))
    assert reading.of("colour") == ("e85fa8",)


def test_an_unknown_prompt_is_abstract_in_colours_of_its_own() -> None:
    one, other = scene_of("quantum synergy"), scene_of("holistic paradigm")
    assert one.kind == other.kind == "abstract"
    assert not np.allclose(one.palette.sky[2], other.palette.sky[2], atol=0.02)
    assert np.allclose(one.palette.sky[2], scene_of("quantum synergy").palette.sky[2])


@pytest.mark.parametrize("prompt", ["a cat", "sunset", "snow", "a starry sky"])
def test_a_subject_or_an_hour_alone_still_gets_a_landscape(prompt: str) -> None:
    scene = scene_of(prompt)
    assert scene.kind == "landscape"
    assert scene.places


def test_the_negative_prompt_takes_things_out() -> None:
    prompt = "a cat in a foggy forest before mountains, moon and stars"
    scene = scene_of(prompt, "cat, fog, forest, moon")
    assert (scene.subjects, scene.weather, scene.places) == ((), frozenset(), ("mountains",))
    assert "moon" not in scene.heaven
    assert "stars" in scene.heaven


def test_the_negative_prompt_takes_a_colour_out() -> None:
    pink, plain = scene_of("pink sunset"), scene_of("pink sunset", "pink")
    chroma = [
        max(float(np.hypot(*to_lab(stop)[1:])) for stop in scene.palette.sky[1:3]) for scene in (pink, plain)
    ]
    assert chroma[1] < 0.5 * chroma[0]


def test_leaving_out_one_thing_leaves_the_rest_where_it_was() -> None:
    whole, less = (drawn("a cat on a hill, starry night", negative_prompt=text) for text in ("", "cat"))
    same = (whole == less).all(axis=2)
    assert not same.all()
    assert same[: whole.shape[0] // 3].mean() > 0.9


def test_every_word_of_the_vocabulary_is_found_and_drawn_by_something() -> None:
    assert set(WORDS["time"]) == set(HOURS)
    assert set(WORDS["season"]) | {""} == set(LANDS)
    assert set(WORDS["place"]) == set(PLACES) | {"space", "abstract"}
    assert set(WORDS["subject"]) == set(FIGURES) | WITHOUT_FIGURE
    for kind, names in WORDS.items():
        for name, words in names.items():
            for word in words.split():
                assert name in read(word.replace("_", " ")).of(kind), word


# Drawing


@pytest.mark.parametrize(
    "name", [name for kind in ("place", "subject", "style", "heaven", "weather") for name in WORDS[kind]]
)
def test_every_thing_can_be_drawn_in_any_shape(name: str) -> None:
    kind = next(kind for kind in ("place", "subject", "style", "heaven", "weather") if name in WORDS[kind])
    word = WORDS[kind][name].split()[0].replace("_", " ")
    for width, height in ((1, 1), (33, 17)):
        picture = drawn(f"red {word} at dusk", width=width, height=height)
        assert picture.shape == (height, width, 3)


def test_what_a_prompt_names_leaves_its_mark() -> None:
    plain = drawn("hills at night", width=96, height=96)
    for thing in ("a cat on", "a red balloon over", "aurora above", "snowy", "rainy", "watercolor of"):
        assert np.abs(drawn(f"{thing} hills at night", width=96, height=96) - plain).mean() > 0.5


def test_night_is_darker_than_day() -> None:
    assert drawn("mountains at night").mean() < 0.5 * drawn("mountains, sunny day").mean()


def test_guidance_sets_how_strong_the_colours_are() -> None:
    spread = [drawn("sunset sea", guidance_scale=scale).std() for scale in (1.0, 7.5, 15.0)]
    assert spread == sorted(spread)
    assert spread[2] > 1.1 * spread[0]


def test_steps_refine_the_drawing() -> None:
    few, many = (
        drawn("mountains at noon", num_inference_steps=steps, width=160, height=160) for steps in (1, 30)
    )
    assert np.abs(few - many).mean() > 0.3


def test_a_drawing_is_neither_flat_nor_burnt_out() -> None:
    for prompt in (
        "misty mountains",
        "city at night",
        "desert",
        "silk",
        "galaxy",
        "portrait of a woman",
        "snow",
    ):
        picture = drawn(prompt, width=96, height=96)
        assert picture.std() > 12
        assert ((picture == 0) | (picture == 255)).mean() < 0.5


def test_another_process_draws_the_same_bits() -> None:
    prompt = "a fox in an autumn forest, golden hour"
    program = (
        "import hashlib, sys; sys.path.insert(0, 'tests/unit'); from test_sketch import drawn; "
        f"print(hashlib.sha256(drawn({prompt!r}).tobytes()).hexdigest())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "1"},
    )
    assert ran.stdout.strip() == hashlib.sha256(drawn(prompt).tobytes()).hexdigest()


def test_a_sketch_says_that_it_is_no_model() -> None:
    (picture,) = Sketch().generate(spec_of("hills"), Inputs(), SILENT)
    assert picture.notes == {"engine": "sketch", "note": "procedural drawing, not a model"}


def test_every_landscape_ends_with_the_finish() -> None:
    for prompt in ("lake", "galaxy", "silk"):
        assert [stroke.__name__ for stroke in strokes(scene_of(prompt))][-2:] == ["vignette", "grain"]


# Inputs


GIVEN = StoredImage(key="x", sha256="0" * 64, width=48, height=40)


def test_what_is_inpainted_melts_into_its_surroundings_inside_the_mask() -> None:
    image = Image.new("RGB", (120, 120), (230, 120, 40))
    mask = Image.new("L", image.size)
    mask.paste(255, (30, 30, 90, 90))
    spec = spec_of("night sky", operation="inpaint", image=GIVEN, mask_image=GIVEN, width=120, height=120)
    (picture,) = Sketch().generate(spec, Inputs(image=image, mask_image=mask), SILENT)
    off = np.abs(np.asarray(picture.image, np.int16) - np.asarray(image, np.int16)).sum(axis=2)
    assert off[0:30].max() == 0
    assert off[31, 60] < 0.4 * off[60, 60]


def test_missing_inputs_and_huge_sizes_are_refused() -> None:
    for changes, reason in (
        ({"operation": "image_to_image", "image": GIVEN}, "needs an input image"),
        ({"width": 8192, "height": 8192}, "at most 16,777,216 pixels"),
    ):
        with pytest.raises(ProviderRefused, match=reason):
            next(Sketch().generate(spec_of("x", **changes), Inputs(), SILENT))
    spec = spec_of("x", operation="inpaint", image=GIVEN, mask_image=GIVEN)
    with pytest.raises(ProviderRefused, match="needs a mask"):
        next(Sketch().generate(spec, Inputs(image=Image.new("RGB", (48, 40))), SILENT))


# Colours and fields


def test_lab_there_and_back_is_the_same_colour() -> None:
    for code in ("000000", "ffffff", "c8102e", "12a5a0", "010203"):
        assert np.allclose(from_lab(to_lab(rgb(code))), rgb(code), atol=2e-3)
    assert np.allclose(mix(rgb("c8102e"), rgb("2a6fdb"), 1.0), rgb("2a6fdb"), atol=2e-3)


def test_blurring_keeps_the_mean_and_never_overshoots() -> None:
    field = (np.random.default_rng(1).random((60, 80)) > 0.7).astype(np.float32)
    for radius in (1, 4, 15, 200):
        soft = blur(field, radius)
        assert soft.min() >= 0
        assert soft.max() <= 1
        assert abs(float(soft.mean() - field.mean())) < 0.02
