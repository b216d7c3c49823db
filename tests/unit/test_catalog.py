"""The catalogue: what a model can do, and how a size is chosen."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain import catalog
from app.domain.catalog import Catalog, SizeLimits
from app.domain.spec import Operation
from app.domain.upstreams import Upstream
from app.errors import SetupError, UnknownModel
from workers import providers


@pytest.fixture
def built_in() -> Catalog:
    return catalog.load()


def test_the_built_in_catalogue_names_only_providers_there_are(built_in: Catalog) -> None:
    assert {target.provider for model in built_in.models for target in model.targets} <= set(
        providers.names()
    )


def test_a_model_is_found_by_its_id_and_by_each_alias(built_in: Catalog) -> None:
    for model in built_in.models:
        assert all(built_in.find(name) is model for name in (model.id, *model.aliases))


def test_an_unknown_model_gets_the_nearest_name(built_in: Catalog) -> None:
    with pytest.raises(UnknownModel, match="did you mean 'sketch'"):
        built_in.find("sketsh")


def test_a_request_within_the_limits_has_no_problems(built_in: Catalog) -> None:
    model = built_in.find("sketch")

    assert model.problems_with(operation=Operation.INPAINT, width=512, height=512, num_images=4) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": 8}, "width"),
        ({"height": 4096}, "height"),
        ({"num_images": 11}, "num_images"),
        ({"width": 2048, "height": 2049}, "height"),
    ],
)
def test_a_request_beyond_a_limit_names_the_field(
    built_in: Catalog, changes: dict[str, int], field: str
) -> None:
    asked = {"width": 512, "height": 512, "num_images": 1, **changes}

    problems = built_in.find("sketch").problems_with(operation=Operation.TEXT_TO_IMAGE, **asked)

    assert [problem.field for problem in problems] == [field]
    assert str(changes[field]) in problems[0].message


def test_a_catalogue_with_a_doubled_name_is_refused(tmp_path: Path, built_in: Catalog) -> None:
    model = built_in.models[0].model_dump(mode="json")
    file = tmp_path / "models.yaml"
    file.write_text(f"models: [{model}, {model}]".replace("None", "null"))

    with pytest.raises(SetupError, match="unique"):
        catalog.load(file)


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nowhere\.yaml"):
        catalog.load(tmp_path / "nowhere.yaml")


@given(
    width=st.integers(1, 8192),
    height=st.integers(1, 8192),
    multiple=st.sampled_from([1, 8, 16]),
)
def test_an_input_images_size_is_always_fitted_to_an_allowed_one(
    width: int, height: int, multiple: int
) -> None:
    limits = SizeLimits(min=64, max=2048, multiple=multiple, max_pixels=2048 * 2048)

    fitted = limits.fit(width, height)

    assert all(limits.problem_with(side) is None for side in fitted)


@given(width=st.integers(64, 2048), height=st.integers(64, 2048))
def test_an_input_image_within_the_limits_keeps_its_size(width: int, height: int) -> None:
    limits = SizeLimits(min=64, max=2048, multiple=1, max_pixels=2048 * 2048)

    assert limits.fit(width, height) == (width, height)


def upstream_at(base_url: str) -> Upstream:
    return Upstream.model_validate({"name": "shop", "api": "openai", "base_url": base_url})


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:8000/v1", "http://[::1]:8000", "https://api.openai.com/v1"]
)
def test_an_upstream_may_be_anywhere(base_url: str) -> None:
    assert upstream_at(base_url).base_url == base_url


@pytest.mark.parametrize(
    ("base_url", "why"),
    [
        ("http://localhost:8000/v1", "127.0.0.1"),
        ("http://LOCALHOST/v1", "127.0.0.1"),
        ("http://shop.localhost/v1", "127.0.0.1"),
        ("http://shop:0/v1", "port"),
        ("http://shop:99999/v1", "[Pp]ort"),
        ("http://:80/v1", "host"),
    ],
)
def test_an_upstream_where_no_worker_could_go_is_no_catalogue(base_url: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        upstream_at(base_url)
