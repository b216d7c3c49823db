"""The shelf: real models, offered only where the operator names them, and who gets a name they share."""

from pathlib import Path

import pytest

from app import readiness, settings
from app.domain import catalog
from app.domain.catalog import Catalog
from app.domain.queues import gpu_of, pool_of
from app.errors import SetupError
from app.local.up import refuse_what_cannot_be_drawn
from app.settings import Settings

SHELF = catalog.shelf()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / settings.ENV_FILE).write_text(f"DARKROOM_MODELS_FOLDER={tmp_path / 'weights'}\n")
    return tmp_path


def loaded(state: Path, **changes: str) -> Settings:
    with (state / settings.ENV_FILE).open("a") as file:
        file.writelines(f"DARKROOM_{name.upper()}={value}\n" for name, value in changes.items())
    return settings.load_without_servers(state)


def offered(given: Settings) -> Catalog:
    return catalog.load(given.models_file, offered=given.models)


def test_without_settings_only_sketch_is_offered(state: Path) -> None:
    known = offered(loaded(state))

    assert [model.id for model in known.models] == ["sketch"]
    assert (known.profiles, known.upstreams) == ((), ())


@pytest.mark.parametrize("name", SHELF.names())
def test_every_name_of_the_shelf_makes_a_valid_catalogue_alone(name: str) -> None:
    known = catalog.load(offered=[name])

    assert known.models[0].id == name or known.upstream(name) is not None
    assert known.models[-1].id == "sketch"


def test_all_of_the_shelf_together_is_a_valid_catalogue_in_any_order() -> None:
    for names in (SHELF.names(), SHELF.names()[::-1]):
        known = catalog.load(offered=names)

        assert {model.id for model in SHELF.models} < {model.id for model in known.models}
        assert known.profiles == SHELF.profiles
        assert known.upstreams == SHELF.upstreams


def test_every_profile_of_the_shelf_says_licence_and_size() -> None:
    for profile in SHELF.profiles:
        assert profile.licence, profile.name
        assert profile.gigabytes, profile.name


def test_an_alias_goes_to_the_model_that_is_named_first() -> None:
    assert catalog.load(offered=["flux-dev", "flux-schnell"]).find("flux").id == "flux-dev"
    assert catalog.load(offered=["flux-schnell", "flux-dev"]).find("flux").id == "flux-schnell"
    assert catalog.load(offered=["openai"]).find("gpt-image-1").targets[0].provider == "openai"
    assert catalog.load(offered=["flux-dev"]).find("gpt-image-1").id == "sketch"


def test_an_id_stays_with_its_model_whatever_is_named_before_it() -> None:
    assert catalog.load(offered=["imgprocessing"]).find("sdxl").id == "imgprocessing-sdxl"
    assert catalog.load(offered=["imgprocessing", "sdxl"]).find("sdxl").id == "sdxl"


def test_only_what_the_offered_models_need_comes_with_them() -> None:
    known = catalog.load(offered=["imgprocessing", "sdxl-lightning"])

    assert [profile.name for profile in known.profiles] == ["sdxl-lightning"]
    assert [upstream.name for upstream in known.upstreams] == ["imgprocessing"]


def test_the_sizes_of_openais_models_are_the_three_that_all_of_them_draw() -> None:
    model = catalog.load(offered=["openai"]).models[0]
    sides = (1024, 1536)
    allowed = {
        (width, height)
        for width in sides
        for height in sides
        if width * height <= model.size.max_pixels and model.size.problem_with(width) is None
    }

    capability = model.targets[0].capability
    assert capability is not None
    assert set(capability.sizes) == allowed
    assert model.size.problem_with(1280) is not None


def test_an_unknown_name_is_refused_with_all_there_are() -> None:
    with pytest.raises(SetupError, match=r"'nix'; on the shelf are sd15, .*, openai"):
        catalog.load(offered=["nix"])


def test_a_shelf_beside_a_catalogue_of_ones_own_is_refused(state: Path) -> None:
    with pytest.raises(SetupError, match=r"only one of DARKROOM_MODELS.*DARKROOM_MODELS_FILE"):
        loaded(state, models="sdxl", models_file="mine.yaml")


def test_up_refuses_an_upstream_without_a_key_and_names_the_setting(state: Path) -> None:
    given = loaded(state, models="openai")
    with pytest.raises(SetupError, match=r"no key is set for openai.*DARKROOM_UPSTREAM_KEYS=openai=KEY"):
        refuse_what_cannot_be_drawn(given, offered(given))

    given = loaded(state, upstream_keys="openai=sk-let-me-in")
    refuse_what_cannot_be_drawn(given, offered(given))


def test_up_refuses_a_local_model_that_cannot_be_drawn_here(state: Path) -> None:
    given = loaded(state, models="sdxl")

    with pytest.raises(SetupError, match="Model sdxl cannot be drawn here"):
        refuse_what_cannot_be_drawn(given, offered(given))


def test_weights_that_are_not_there_are_named_with_the_command_that_gets_them(state: Path) -> None:
    given = loaded(state, models="sdxl")
    known = offered(given)

    lack = readiness.weights_lack(known.models[0].targets[0], known, given)

    assert lack is not None
    assert str(state / "weights" / "stabilityai--stable-diffusion-xl-base-1.0") in lack.says
    assert lack.remedy == "darkroom models pull sdxl"


def test_each_kind_of_queue_gets_its_kind_of_worker() -> None:
    assert pool_of("cpu") == ("-P", "prefork", "-c", "2")
    assert pool_of("gpu.0") == ("-P", "threads", "-c", "2")
    assert pool_of("provider.openai") == ("-P", "threads", "-c", "8")
    assert [gpu_of(name) for name in ("gpu.1", "gpu.big", "cpu")] == ["1", None, None]
