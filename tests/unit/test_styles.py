"""What a style and prompt enhancement make of a customer's words."""

import difflib
import itertools
import re
from collections import Counter
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain import styles
from app.domain.spec import MAX_PROMPT
from app.domain.styles import Enhancement, Kind, Styled, Styles, Template, enhanced
from app.errors import InvalidFields

LISTED = """
enhance cinematic-diva nude nsfw sex abstract-expressionism academia action-figure adorable-3d-character
adorable-kawaii art-deco art-nouveau astral-aura avant-garde baroque bauhaus-style-poster
blueprint-schematic-drawing caricature cel-shaded-art character-design-sheet classicism-art
color-field-painting colored-pencil-art conceptual-art constructivism cubism dadaism dark-fantasy
dark-moody-atmosphere dmt-art doodle-art double-exposure dripping-paint-splatter expressionism
faded-polaroid-photo fauvism flat-2d fortnite-style futurism glitchcore glo-fi googie-style graffiti-art
harlem-renaissance-art high-fashion idyllic impressionism infographic-drawing ink-dripping-drawing
japanese-ink-drawing knolling-photography light-cheery-atmosphere logo-design luxurious-elegance
macro-photography mandola-art marker-drawing medievalism minimalism neo-baroque neo-byzantine neo-futurism
neo-impressionism neo-rococo neoclassicism op-art ornate-and-intricate pencil-sketch-drawing pop-art-2
rococo silhouette-art simple-vector-art sketchup steampunk-2 surrealism suprematism terragen
tranquil-relaxing-atmosphere sticker-designs vibrant-rim-light volumetric-lighting watercolor
whimsical-and-playful sharp masterpiece photograph negative cinematic ads-advertising ads-automotive
ads-corporate ads-fashion-editorial ads-food-photography ads-gourmet-food-photography ads-luxury
ads-real-estate ads-retail abstract abstract-expressionism art-deco art-nouveau constructivist cubist
expressionist graffiti hyperrealism impressionist pointillism pop-art psychedelic renaissance steampunk
surrealist typography watercolor futuristic-biomechanical futuristic-biomechanical-cyberpunk
futuristic-cybernetic futuristic-cybernetic-robot futuristic-cyberpunk-cityscape futuristic-futuristic
futuristic-retro-cyberpunk futuristic-retro futuristic-sci-fi futuristic-vaporwave game-bubble
game-cyberpunk game-fighting game-gta game-mario game-minecraft game-pokemon game-retro-arcade game-retro
game-rpg-fantasy game-strategy game-streetfighter game-zelda misc-architectural misc-disco misc-dreamscape
misc-dystopian misc-fairy-tale misc-gothic misc-grunge misc-horror misc-kawaii misc-lovecraftian
misc-macabre misc-manga misc-metropolis misc-minimalist misc-monochrome misc-nautical misc-space
misc-stained-glass misc-techwear-fashion misc-tribal misc-zentangle papercraft-collage
papercraft-flat-papercut papercraft-kirigami papercraft-paper-mache papercraft-paper-quilling
papercraft-papercut-collage papercraft-papercut-shadow-box papercraft-stacked-papercut
papercraft-thick-layered-papercut photo-alien photo-film-noir photo-glamour photo-hdr
photo-iphone-photographic photo-long-exposure photo-neon-noir photo-silhouette photo-tilt-shift 3d-model
analog-film anime cinematic comic-book craft-clay digital-art fantasy-art isometric line-art lowpoly
neonpunk origami photographic pixel-art texture
"""
"""The names of `enhance_style` as the image to image page of ModelsLab's realtime API lists them."""
PAGE = LISTED.split()

ADULT = {"nude", "nsfw", "sex"}
NEAR_EQUAL = 0.4
"""Share of words in common and in order; the most alike two of our templates have 0.26."""

PROMPTS = st.text(max_size=200) | st.lists(
    st.sampled_from(
        [
            "portrait",
            "of",
            "a",
            "dog",
            "cats",
            "photo",
            "LOGO",
            "soup",
            "fine detail",
            "Expressive-eyes,",
            "castle.",
        ]
    ),
    max_size=12,
).map(" ".join)


@pytest.fixture(scope="module")
def built_in() -> Styles:
    return styles.load()


def refusal(prompt: str, style: str, *, allow_adult: bool = False) -> str:
    with pytest.raises(InvalidFields) as refused:
        styles.load().apply(prompt, "", style=style, allow_adult=allow_adult)
    assert [problem.field for problem in refused.value.problems] == ["enhance_style"]
    return refused.value.problems[0].message


def words_around(template: Template) -> list[str]:
    return re.findall(r"\w+", template.prompt.replace("{prompt}", " ").lower())


def test_the_page_lists_five_names_twice() -> None:
    counts = Counter(PAGE)

    assert (len(PAGE), len(counts)) == (193, 188)
    assert {name for name, count in counts.items() if count > 1} == {
        "abstract-expressionism",
        "art-deco",
        "art-nouveau",
        "watercolor",
        "cinematic",
    }


def test_the_styles_are_the_pages_in_its_order_each_once(built_in: Styles) -> None:
    assert built_in.names() == tuple(dict.fromkeys(PAGE))


def test_no_style_of_the_file_is_written_twice() -> None:
    text = (resources.files("app.domain") / "styles.yaml").read_text(encoding="utf-8")
    names = re.findall(r"^  ([a-z0-9-]+):$", text.split("\nnever_adult:")[0], flags=re.MULTILINE)

    assert len(names) == len(set(names)) == 188


def test_a_template_without_one_place_for_the_prompt_is_refused() -> None:
    for broken in ("an oil painting", "{prompt} and {prompt}"):
        with pytest.raises(ValidationError, match="exactly once"):
            Template(prompt=broken)


def test_every_template_takes_the_prompt_once_and_describes_its_look(built_in: Styles) -> None:
    for name, template in built_in.styles.items():
        assert template.prompt.count("{prompt}") == 1, name
        assert not set(template.prompt.replace("{prompt}", "")) & set("{}"), name
        assert 12 <= len(set(words_around(template))) <= 40, name  # leaves room in an encoder of 77 tokens
        assert template.negative_prompt == ", ".join(dict.fromkeys(template.negative_prompt.split(", "))), (
            name
        )


def test_no_two_templates_are_nearly_equal(built_in: Styles) -> None:
    words = {name: words_around(template) for name, template in built_in.styles.items()}

    for one, other in itertools.combinations(words, 2):
        likeness = difflib.SequenceMatcher(None, words[one], words[other], autojunk=False).ratio()
        assert likeness < NEAR_EQUAL, (one, other)


def test_no_template_says_in_its_prompt_what_is_not_there(built_in: Styles) -> None:
    for name, template in built_in.styles.items():
        denials = {"no", "not", "non", "without", "never", "nothing"} & set(words_around(template))
        assert not denials, name  # text encoders see only the thing denied


def test_a_templates_negative_terms_are_not_in_its_own_prompt(built_in: Styles) -> None:
    for name, template in built_in.styles.items():
        look = f" {' '.join(words_around(template))} "
        assert not [term for term in template.negative_prompt.split(", ") if f" {term} " in look], name


def test_a_style_puts_its_words_around_the_prompt_and_behind_the_negative_one(built_in: Styles) -> None:
    styled = built_in.apply("a cat", "dogs, Photo", style="watercolor", allow_adult=False)

    assert styled.prompt.startswith("Transparent watercolor of a cat, wet-in-wet blooms")
    assert styled.negative_prompt == "dogs, Photo, opaque paint, hard digital lines"


def test_every_style_keeps_the_customers_words_in_one_piece(built_in: Styles) -> None:
    for name in built_in.names():
        styled = built_in.apply("two  cats, one Bench", "dogs", style=name, allow_adult=True)

        assert styled.prompt.count("two  cats, one Bench") == 1, name
        assert styled.negative_prompt.startswith("dogs"), name


@pytest.mark.parametrize("style", [None, "", "  "])
def test_no_style_leaves_both_texts_as_they_are(built_in: Styles, style: str | None) -> None:
    assert built_in.apply("a cat ", " x", style=style, allow_adult=False) == Styled(
        prompt="a cat ", negative_prompt=" x"
    )


def test_a_styles_name_is_read_without_regard_to_case_and_blanks(built_in: Styles) -> None:
    assert built_in.apply("a", "", style=" Pop-Art ", allow_adult=False) == built_in.apply(
        "a", "", style="pop-art", allow_adult=False
    )


@pytest.mark.parametrize(
    "prompt", ["a {cat}", "{prompt}", "{0} {} {{x}}", "100 % {prompt} \\1 $prompt", "}{"]
)
def test_braces_in_a_prompt_survive(built_in: Styles, prompt: str) -> None:
    styled = built_in.apply(prompt, "{y}", style="anime", allow_adult=False)
    before, after = built_in.styles["anime"].prompt.split("{prompt}")

    assert styled.prompt == before + prompt + after
    assert styled.negative_prompt.startswith("{y}, ")


@pytest.mark.parametrize(
    ("style", "nearest"),
    [("cinematik", "'cinematic'"), ("game_zelda", "'game-zelda'"), ("lowpolly", "'lowpoly'")],
)
def test_an_unknown_style_gets_the_nearest_names(style: str, nearest: str) -> None:
    message = refusal("a cat", style)

    assert message.startswith(f"there is no style {style!r}; did you mean ")
    assert nearest in message


def test_a_style_like_no_other_gets_some_to_choose_from(built_in: Styles) -> None:
    message = refusal("a cat", "qqqq" * 1000)

    assert len(message) < 200
    assert set(re.findall(r"'([a-z-]+)'", message.split("; ")[1])) <= set(built_in.names())


@pytest.mark.parametrize("style", sorted(ADULT))
def test_an_adult_style_is_known_and_refused_unless_the_operator_allows_it(
    built_in: Styles, style: str
) -> None:
    assert "adult content, which this installation does not offer" in refusal("a statue", style)
    assert "a statue" in built_in.apply("a statue", "", style=style, allow_adult=True).prompt


def test_only_the_three_adult_names_are_adult(built_in: Styles) -> None:
    assert {name for name, template in built_in.styles.items() if template.adult} == ADULT


def test_an_adult_style_is_suggested_only_where_it_may_be_used() -> None:
    assert "nude" not in refusal("a cat", "nudes").split("; ")[1]
    assert "'nude'" in refusal("a cat", "nudes", allow_adult=True)


@pytest.mark.parametrize("prompt", ["a child", "Two Teenagers at the sea", "toddler,sleeping"])
def test_no_adult_style_is_applied_to_a_prompt_about_minors(prompt: str) -> None:
    for style in ADULT:
        assert "minors" in refusal(prompt, style, allow_adult=True)


def test_a_text_too_long_with_the_styles_words_is_refused_by_its_field(built_in: Styles) -> None:
    full = "x" * MAX_PROMPT

    with pytest.raises(InvalidFields) as refused:
        built_in.apply(full, full, style="anime", allow_adult=False)

    assert [problem.field for problem in refused.value.problems] == ["prompt", "negative_prompt"]
    assert "at most 10,000 characters" in refused.value.problems[0].message


def test_a_text_that_just_has_room_for_the_styles_words_is_taken(built_in: Styles) -> None:
    room = len(built_in.styles["anime"].prompt) - len("{prompt}")

    styled = built_in.apply("x" * (MAX_PROMPT - room), "", style="anime", allow_adult=False)

    assert len(styled.prompt) == MAX_PROMPT


@pytest.mark.parametrize(
    ("prompt", "added"),
    [
        ("a thing", "clear focal point, balanced composition, fine detail"),
        ("photo of soup", "well judged exposure, lifelike texture, fine tonal range, appetizing texture"),
        ("Watercolor of two foxes", "confident strokes, rich pigment, harmonious palette, fine fur texture"),
        ("logo of a castle", "clean edges, balanced negative space, cohesive palette, precise perspective"),
        ("portrait drawing", "expressive contours, controlled shading, paper grain, expressive eyes"),
    ],
)
def test_a_prompt_is_enhanced_with_what_suits_its_medium_and_subject(prompt: str, added: str) -> None:
    assert enhanced(prompt).startswith(f"{prompt}, {added}")


def test_the_first_two_subjects_of_a_prompt_get_terms_in_its_own_order() -> None:
    terms = enhanced("a photo: mountains, a castle and a horse").split(", ")

    assert terms.index("layered depth") < terms.index("precise perspective")
    assert "fine fur texture" not in terms


def test_a_term_already_there_is_not_repeated_however_it_is_written() -> None:
    prompt = "a thing, Fine-Detail. balanced  COMPOSITION"

    assert enhanced(prompt) == f"{prompt}, clear focal point"


def test_part_of_a_word_is_not_taken_for_a_term_or_a_subject() -> None:
    assert enhanced("a scatter of fine details").endswith(
        "fine details, clear focal point, balanced composition, fine detail"
    )


@pytest.mark.parametrize(
    ("prompt", "start"),
    [("a cup!", "a cup! clear"), ("a cup,", "a cup, clear"), ("a cup \n", "a cup, clear")],
)
def test_terms_are_joined_as_the_end_of_the_prompt_asks(prompt: str, start: str) -> None:
    assert enhanced(prompt).startswith(start)


@pytest.mark.parametrize("prompt", ["", "   ", "...", "\n?!"])
def test_a_prompt_without_words_stays_as_it_is(prompt: str) -> None:
    assert enhanced(prompt) == prompt


def test_with_a_style_only_the_subjects_get_terms(built_in: Styles) -> None:
    prompt = enhanced("a photo of a cat", style="line-art")

    assert prompt == "a photo of a cat, fine fur texture, alert eyes, lively posture"
    assert prompt in built_in.apply(prompt, "", style="line-art", allow_adult=False).prompt


@given(prompt=PROMPTS, style=st.sampled_from([None, *PAGE]))
def test_enhancing_twice_is_enhancing_once(prompt: str, style: str | None) -> None:
    once = enhanced(prompt, style=style)

    assert enhanced(once, style=style) == once
    assert enhanced(prompt, style=style) == once


@given(prompt=PROMPTS)
def test_enhancing_keeps_the_customers_words_first(prompt: str) -> None:
    assert enhanced(prompt).startswith(prompt.rstrip())


@given(prompt=PROMPTS)
def test_enhancing_repeats_no_term(prompt: str) -> None:
    added = enhanced(prompt)[len(prompt.rstrip()) :].lstrip(" ,").split(", ")
    held = " ".join(re.findall(r"\w+", prompt.casefold()))

    assert len(added) == len(set(added))
    assert not [term for term in added if term and f" {term} " in f" {held} "]


@given(
    subject=st.sampled_from(["portrait", "castle, soup", "x"]),
    spare=st.integers(-5, 120),
    style=st.sampled_from([None, "anime", "game-zelda"]),
)
def test_enhancing_never_makes_a_prompt_too_long_also_with_a_style(
    subject: str, spare: int, style: str | None
) -> None:
    template = styles.load().styles[style].prompt if style else "{prompt}"
    limit = MAX_PROMPT + len("{prompt}") - len(template)
    prompt = f"{subject} ".ljust(limit - spare, "y")

    once = enhanced(prompt, style=style)

    assert len(once) <= max(limit, len(prompt))
    assert enhanced(once, style=style) == once


def test_a_vocabulary_whose_terms_would_be_enhanced_again_is_refused() -> None:
    cat = Kind(words=frozenset({"cat"}), terms=("soft fur",))

    with pytest.raises(ValidationError, match="'two cats'"):
        Enhancement(plain=("two cats",), media=(), subjects=(cat,))


def test_no_word_tells_two_kinds_of_prompt(built_in: Styles) -> None:
    for kinds in (built_in.enhancement.media, built_in.enhancement.subjects):
        words = Counter(word for kind in kinds for word in kind.words)
        assert [word for word, count in words.items() if count > 1] == []
        assert all(word == word.casefold() and re.fullmatch(r"\w+", word) for word in words)
