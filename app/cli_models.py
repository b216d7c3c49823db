"""`darkroom models`: what the shelf and the catalogue offer, and the weights that local models need."""

from collections.abc import Iterator
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from app import readiness
from app.domain import catalog
from app.domain.catalog import Catalog, Model, Shelf, Target
from app.domain.profiles import Profile
from app.errors import SetupError
from app.settings import Settings
from app.weights.hub import Hub
from app.weights.pull import Load, as_gigabytes, check_room, fetch, plan

_DIFFUSERS: Final = "diffusers"
_WIDEST: Final = 1000


def show(settings: Settings) -> None:
    """Print a line for each name of the shelf, and for each model that is offered beside them."""
    shelf, known = catalog.shelf(), _known(settings)
    table = Table(box=None)
    for title in ("name", "offered", "drawn by", "licence", "size", "here"):
        table.add_column(title, no_wrap=True)
    offered = {model.id for model in known.models}
    everything = Catalog.model_construct(
        models=shelf.models, profiles=shelf.profiles, upstreams=shelf.upstreams
    )
    for name in shelf.names():
        model = next(model for model in shelf.models if shelf.name_of(model) == name)
        mark = "yes" if model.id in offered and not settings.models_file else "no"
        table.add_row(name, mark, *_described(model.targets[0], everything, settings))
    for model in known.models:
        if settings.models_file or model.id not in {one.id for one in shelf.models}:
            for target in model.targets:
                table.add_row(model.id, "yes", *_described(target, known, settings))
    # At its full width, whatever the terminal's or that of a pipe, as `keys list` does.
    wide = Console(highlight=False, width=_WIDEST)
    wide.print(table)
    if (lack := readiness.engine_lack()) is not None:
        wide.print(f"What our GPU would draw is not drawn: {lack.says}; {lack.remedy}", markup=False)


def _described(target: Target, known: Catalog, settings: Settings) -> Iterator[str]:
    profile = known.profile(target.model) if target.provider == _DIFFUSERS else None
    upstream = known.upstream(target.provider)
    yield "our GPU" if profile else upstream.base_url if upstream else target.provider
    yield (profile.licence or "see its page") if profile else "-"
    yield f"{profile.gigabytes:g} GB" if profile and profile.gigabytes else "-"
    if profile:
        lack = readiness.weights_lack(target, known, settings)
        yield "weights" if lack is None else f"no weights: {lack.remedy}"
    elif upstream:
        yield "key" if upstream.name in settings.keys_of_upstreams else "no key: DARKROOM_UPSTREAM_KEYS"
    else:
        yield "needs nothing"


def pull(settings: Settings, name: str, *, yes: bool, out: Console) -> None:
    """Show licence and size of a model's weights, ask, and download what is not there yet.

    Raises:
        SetupError: there is nothing to pull by this name, or it did not come; the message says what to do.
    """
    profile = _profile(settings, name)
    size = f", about {profile.gigabytes:g} GB" if profile.gigabytes else ""
    out.print(f"{profile.name}: {profile.licence or 'licence: see its page'}{size}", markup=False)
    hub = Hub(settings)
    loads = plan(profile, settings.models_folder, hub)
    for load in loads:
        _tell(load, out)
    free = check_room(loads, settings.models_folder)
    to_come = sum(load.to_come for load in loads)
    out.print(f"To {settings.models_folder}, where {as_gigabytes(free)} are free.", markup=False)
    if to_come and not yes:
        click.confirm(f"Download {as_gigabytes(to_come)}, under these licences?", abort=True)
    for load in loads:
        fetch(load, hub)
    out.print(f"All weights of {profile.name} are there. {_next(settings, name)}", markup=False)


def _tell(load: Load, out: Console) -> None:
    here = load.size - load.to_come
    already = f", {as_gigabytes(here)} of them here already" if here else ""
    licence = load.repository.licence
    says = f"its page says {licence}" if licence else "its page names no licence"
    out.print(
        f"  {load.repository.id} at {load.repository.commit}\n"
        f"    {says}; {as_gigabytes(load.size)} in {len(load.names)} files{already}",
        markup=False,
    )


def _next(settings: Settings, name: str) -> str:
    if (lack := readiness.engine_lack()) is not None:
        return f"Nothing draws with them: {lack.says}; {lack.remedy}"
    if settings.models_file or name in settings.models:
        return "Start its worker, or: darkroom up"
    offered = ",".join((*settings.models, name))
    return f"Offer it with DARKROOM_MODELS={offered}, as in: DARKROOM_MODELS={offered} make up"


def _profile(settings: Settings, name: str) -> Profile:
    """Give the profile by its name or its model's, of the catalogue, else of the shelf."""
    shelf, known = catalog.shelf(), _known(settings)
    for source in (known, shelf):
        drawn = [target for model in source.models if model.id == name for target in model.targets]
        names = [name, *(target.model for target in drawn if target.provider == _DIFFUSERS)]
        found = [profile for profile in source.profiles if profile.name in names]
        if found:
            return found[0]
    if any(name in {shelf.name_of(model), model.id} for model in (*shelf.models, *known.models)):
        raise SetupError(f"{name} needs no weights. {_instead(shelf, known, name)}".rstrip())
    local = [profile.name for profile in (*known.profiles, *shelf.profiles)]
    raise SetupError(f"There is no model {name!r} to pull; there are {', '.join(dict.fromkeys(local))}")


def _instead(shelf: Shelf, known: Catalog, name: str) -> str:
    upstreams = {upstream.name for upstream in (*shelf.upstreams, *known.upstreams)}
    models: tuple[Model, ...] = (*shelf.models, *known.models)
    named = [model for model in models if name in {model.id, shelf.name_of(model)}]
    keys = sorted(upstreams & {target.provider for model in named for target in model.targets})
    return f"It is drawn elsewhere: set DARKROOM_UPSTREAM_KEYS={keys[0]}=KEY" if keys else ""


def _known(settings: Settings) -> Catalog:
    return catalog.load(settings.models_file, offered=settings.models)
