"""The outlines of everything that stands, swims or flies in a picture.

Coordinates are (x, y) in heights of the figure: feet at y 0, top near y 1, x 0 in the middle.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Points: TypeAlias = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Part:
    """One piece of an outline.

    Attributes:
        form: blob (smooth closed curve), edge (polygon), oval (two points: centre, radii) or limb (smooth
            thick line).
        points: where.
        width: of a limb.
    """

    form: Literal["blob", "edge", "oval", "limb"]
    points: Points
    width: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """How a subject looks and where it belongs.

    Attributes:
        body: what is painted dark.
        accents: what is painted in a lighter tone on the body; such figures are colourful.
        lamps: what shines: windows, lamps.
        tall: its height in units of the canvas.
        home: ground, water or air.
        crowd: how many there are.
    """

    body: tuple[Part, ...]
    accents: tuple[Part, ...] = ()
    lamps: tuple[Part, ...] = ()
    tall: float
    home: Literal["ground", "water", "air"] = "ground"
    crowd: int = 1


def _points(text: str) -> Points:
    """Give points from "x,y x,y …" in hundredths of the height."""
    pairs = (pair.split(",") for pair in text.split())
    return tuple((float(x) / 100, float(y) / 100) for x, y in pairs)


def _oval(x: float, y: float, across: float, up: float) -> Part:
    return Part("oval", ((x / 100, y / 100), (across / 100, up / 100)))


def _edge(points: str) -> Part:
    return Part("edge", _points(points))


def _blob(points: str) -> Part:
    return Part("blob", _points(points))


def _limb(width: float, points: str) -> Part:
    return Part("limb", _points(points), width / 100)


PROFILE: Final = _blob(
    "46,-2 40,9 24,19 14,27 12,36 20,38.5 28,40 30,43.5 27.2,46.8 30.6,49 28.8,51.2 31.2,53.5 29.2,57.2 "
    "38,58.5 34.8,64 30,70 30.8,74 30,81 24,91 10,98 -8,99 -24,92 -33,78 -33,62 -28,50 -23,42 -20,33 -25,25 "
    "-40,17 -55,8 -60,-2"
)
"""A head and shoulders, looking right."""
SHORT_HAIR: Final = (_blob("26,84 30,93 16,103 -10,104 -30,96 -38,78 -36,60 -28,52 -10,70"),)
LONG_HAIR: Final = (
    _blob("26,85 28,94 14,103 -12,103 -34,92 -42,70 -46,45 -56,22 -50,12 -30,12 -14,30 -10,60"),
    _oval(-33, 95, 13, 11),
)

FIGURES: Final[dict[str, Figure]] = {
    "cat": Figure(
        tall=0.26,
        body=(
            _blob("-24,-2 -28,18 -22,42 -10,70 12,70 18,45 22,20 22,-2"),
            _oval(3, 76, 17, 15),
            _edge("-13,78 -11,100 3,88"),
            _edge("5,89 17,100 19,78"),
            _limb(7, "-20,4 -40,3 -54,14 -50,34 -56,46"),
        ),
    ),
    "dog": Figure(
        tall=0.27,
        body=(
            _blob("-26,-2 -27,20 -16,45 -4,72 14,72 20,45 18,20 22,-2"),
            _oval(6, 83, 15, 14),
            _blob("12,90 26,86 36,84 37,75 28,71 10,70"),
            _edge("33,84 38,84 38,79 33,79"),
            _blob("2,98 -10,96 -16,82 -15,66 -8,64 -4,78 6,92"),
            _limb(7, "-20,5 -42,10 -54,30"),
        ),
    ),
    "fox": Figure(
        tall=0.25,
        body=(
            _blob("-22,-2 -25,20 -14,48 -5,72 13,72 17,42 16,20 20,-2"),
            _edge("-10,82 -8,106 3,92 12,92 22,104 22,82 36,68 20,64 -2,66"),
            _blob("-16,2 -36,-2 -62,6 -76,26 -62,30 -42,24 -20,20"),
        ),
    ),
    "rabbit": Figure(
        tall=0.16,
        body=(
            _blob("-30,-2 -36,20 -24,42 0,48 20,36 24,-2"),
            _oval(20, 50, 16, 13),
            _blob("10,55 0,85 6,100 14,90 18,58"),
            _blob("18,56 16,86 24,100 28,86 26,56"),
            _oval(-36, 16, 7, 7),
        ),
    ),
    "deer": Figure(
        tall=0.3,
        body=(
            _blob("-34,44 -30,58 -10,58 12,56 24,74 30,72 26,50 18,40 -10,38 -28,38"),
            _blob("18,72 24,82 32,80 44,72 42,67 28,68"),
            _limb(4.5, "-29,45 -33,25 -30,0"),
            _limb(4, "-22,42 -24,22 -20,0"),
            _limb(4, "16,42 17,22 16,0"),
            _limb(3.5, "22,44 25,22 25,0"),
            _limb(2.5, "25,80 16,92 20,106"),
            _limb(2.5, "17,90 8,96 6,104"),
            _limb(2.5, "28,80 34,94 32,108"),
            _limb(2.5, "34,94 42,100 44,106"),
        ),
    ),
    "bird": Figure(
        tall=0.03,
        home="air",
        crowd=9,
        body=(
            _limb(13, "-100,50 -50,75 0,30"),
            _limb(13, "100,60 50,80 0,30"),
            _oval(0, 30, 16, 11),
        ),
    ),
    "whale": Figure(
        tall=0.17,
        home="water",
        body=(
            _edge("-20,0 -13,20 -6,40 -4,62 4,62 6,40 13,20 20,0"),
            _blob("0,50 -20,75 -55,85 -62,98 -30,100 -4,82 4,82 30,100 62,98 55,85 20,75"),
        ),
    ),
    "boat": Figure(
        tall=0.2,
        home="water",
        body=(
            _edge("-36,14 -26,0 28,0 42,16"),
            _edge("-2,14 -2,100 0,100 1,14"),
            _blob("3,20 3,20 4,60 3,96 3,96 22,60 38,22 38,22"),
            _blob("-5,22 -5,22 -5,60 -5,84 -5,84 -20,50 -30,22 -30,22"),
        ),
    ),
    "balloon": Figure(
        tall=0.21,
        home="air",
        crowd=3,
        body=(
            _blob("-5,22 -16,34 -36,56 -36,84 -16,100 16,100 36,84 36,56 16,34 5,22"),
            _edge("-7,10 -6,0 6,0 7,10"),
            _limb(0.8, "-6,10 -10,28"),
            _limb(0.8, "6,10 10,28"),
        ),
        accents=(
            _blob("-4.5,24 -13.5,34 -30,56 -30,84 -12,98.5 -8,98.5 -20,84 -20,56 -9,34 -3,24"),
            _blob("-1.1,24 -3.2,34 -7,56 -7,84 -2.8,98.5 2.8,98.5 7,84 7,56 3.2,34 1.1,24"),
            _blob("3,24 9,34 20,56 20,84 8,98.5 12,98.5 30,84 30,56 13.5,34 4.5,24"),
        ),
    ),
    "lighthouse": Figure(
        tall=0.4,
        body=(
            _edge("-10,-3 -6,78 6,78 10,-3"),
            _edge("-8.5,78 -8.5,80 8.5,80 8.5,78"),
            _edge("-5,80 -5,90 5,90 5,80"),
            _edge("-6.5,90 0,98 6.5,90"),
            _edge("10,0 10,14 20,20 30,14 30,-3"),
        ),
        lamps=(_edge("-4,81.5 -4,89 4,89 4,81.5"),),
    ),
    "house": Figure(
        tall=0.16,
        body=(
            _edge("-55,-6 -55,50 55,50 55,-6"),
            _edge("-68,48 -36,92 36,92 68,48"),
            _edge("20,80 20,108 32,108 32,80"),
        ),
        lamps=(
            _edge("-38,16 -38,36 -18,36 -18,16"),
            _edge("18,16 18,36 38,36 38,16"),
            _edge("-7,0 -7,34 7,34 7,0"),
        ),
    ),
    "castle": Figure(
        tall=0.3,
        body=(
            _edge("-62,-8 -62,42 62,42 62,-8"),
            _edge("-72,-8 -72,58 -50,58 -50,-8"),
            _edge("-76,57 -61,86 -46,57"),
            _edge("50,-8 50,54 70,54 70,-8"),
            _edge("46,53 60,80 74,53"),
            _edge("-20,-8 -20,72 8,72 8,-8"),
            _edge("-25,71 -6,108 13,71"),
            _edge("18,-8 18,60 34,60 34,-8"),
            _edge("14,59 26,84 38,59"),
        ),
        lamps=(
            _oval(-6, 56, 2.5, 5),
            _oval(-61, 44, 2, 4),
            _oval(26, 46, 2, 4),
            _oval(60, 40, 2, 4),
            _oval(-35, 22, 2, 4),
        ),
    ),
    "oak": Figure(
        tall=0.34,
        body=(
            _blob("-12,-3 -4,6 -3.5,40 3.5,40 4,6 13,-3"),
            _limb(3.5, "0,30 -14,46 -26,56"),
            _limb(3.5, "0,32 14,48 26,60"),
            _oval(0, 76, 24, 20),
            _oval(-24, 64, 19, 15),
            _oval(25, 66, 19, 15),
            _oval(-12, 84, 17, 14),
            _oval(14, 86, 16, 13),
            _oval(-36, 56, 10, 8),
            _oval(37, 57, 10, 8),
        ),
    ),
    "palm": Figure(
        tall=0.36,
        body=(
            _limb(3.5, "-10,-2 -6,40 4,84"),
            _blob("4,84 16,100 36,98 50,84 54,70 44,82 28,90"),
            _blob("4,84 22,92 42,84 50,66 48,54 40,70 24,82"),
            _blob("4,84 16,86 28,76 32,58 30,46 22,64 12,76"),
            _blob("4,84 8,100 20,112 36,112 24,106 14,98"),
            _blob("4,82 -8,98 -28,96 -42,82 -46,68 -36,80 -20,88"),
            _blob("4,82 -14,90 -34,82 -42,64 -40,52 -32,68 -16,80"),
            _blob("4,82 -8,84 -20,74 -24,56 -22,44 -14,62 -4,74"),
            _blob("4,82 0,98 -12,110 -28,110 -16,104 -6,96"),
        ),
    ),
    "person": Figure(
        tall=0.17,
        body=(
            _oval(0, 91, 6.5, 8),
            _blob("-13,45 -15,70 -8,82 8,82 15,70 13,45"),
            _limb(8.5, "-6,48 -8,25 -10,-1"),
            _limb(8.5, "6,48 8,25 11,-1"),
            _limb(5, "13,74 20,58 24,46"),
            _limb(1.8, "25,68 25,30 26,-2"),
            _blob("-12,50 -23,54 -24,76 -10,78"),
        ),
    ),
}
