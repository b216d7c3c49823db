"""From a scene to a picture: which strokes, in which order."""

from collections.abc import Callable
from typing import Final, TypeAlias

from workers.providers.sketch import city, dream, figures, finish, forest, land, meadow, sky, water, weather
from workers.providers.sketch.canvas import Canvas
from workers.providers.sketch.scene import Scene

Stroke: TypeAlias = Callable[[Canvas, Scene], None]

HEAVEN: Final[tuple[tuple[str, tuple[Stroke, ...]], ...]] = (
    ("stars", (sky.milky_way, sky.stars)),
    ("aurora", (sky.aurora,)),
    ("sun", (sky.orb,)),
    ("moon", (sky.orb,)),
    ("clouds", (sky.clouds,)),
    ("rainbow", (sky.rainbow,)),
    ("lightning", (sky.lightning,)),
)
PLACES: Final[dict[str, Stroke]] = {
    "mountains": land.mountains,
    "city": city.city,
    "dunes": land.dunes,
    "hills": land.hills,
    "forest": forest.forest,
    "water": water.water,
    "meadow": meadow.meadow,
}
FALLING: Final[dict[str, Stroke]] = {"rain": weather.rain, "snow": weather.snow}


def strokes(scene: Scene) -> tuple[Stroke, ...]:
    """Give what to paint, back to front: sky, light, layers of land, figures, weather, finish."""
    if scene.kind == "abstract":
        ground: list[Stroke] = [dream.silk]
    elif scene.kind == "space":
        ground = [dream.deep_space, sky.stars, dream.planet]
    else:
        ground = [sky.air]
        ground += [stroke for name, several in HEAVEN if name in scene.heaven for stroke in several]
        ground += [PLACES[place] for place in scene.places]
    if "fog" in scene.weather:
        ground.append(weather.fog)
    ground.append(figures.figures)
    ground += [stroke for name, stroke in FALLING.items() if name in scene.weather]
    if "lantern" in scene.subjects:
        ground.append(weather.fireflies)
    if {"portrait", "maiden"} & set(scene.subjects):
        ground.append(figures.portrait)
    return (*ground, finish.bloom, finish.paint, finish.grade, finish.vignette, finish.grain)
