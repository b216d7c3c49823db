"""How much of one call fits into memory: what the profile says, and less where that once failed."""

from dataclasses import dataclass, field

from app.domain.profiles import Profile
from app.domain.spec import Operation
from app.log import get_logger
from workers.providers.diffusers.cache import Models
from workers.providers.diffusers.calls import Shape

log = get_logger(__name__)

_Kind = tuple[str, Operation, int, int]
"""What a call's memory depends on beside its rows: profile, operation, width, height."""


@dataclass
class Memory:
    """What the calls of this process have shown; forgotten when it ends."""

    models: Models
    _most: dict[_Kind, int] = field(default_factory=dict)
    _tiled: set[_Kind] = field(default_factory=set)

    def room(self, profile: Profile, shape: Shape) -> int:
        """Give how many rows go into a call."""
        return self._most.get(_kind(profile, shape), profile.max_batch)

    def tiles(self, profile: Profile, shape: Shape) -> bool:
        """Give whether the VAE works in tiles: for large pictures, and where it ran out of memory."""
        above = profile.vae_tiling_above
        large = above is not None and shape.width * shape.height > above
        return large or _kind(profile, shape) in self._tiled

    def was_short(self, profile: Profile, shape: Shape, *, rows: int) -> bool:
        """Take that a call ran out of memory, and do the next thing that may help; False: there is none.

        First other models go, then the call is halved, then the VAE works in tiles, which changes pixels.
        """
        if self.models.drop_idle(keep=profile.name):
            done = "dropped other models"
        elif rows > 1:
            self._most[_kind(profile, shape)] = rows // 2
            done = f"halved the call to {rows // 2}"
        elif not self.tiles(profile, shape):
            self._tiled.add(_kind(profile, shape))
            done = "tiled the VAE"
        else:
            done = ""
        log.warning(
            "out_of_memory",
            profile=profile.name,
            width=shape.width,
            height=shape.height,
            rows=rows,
            done=done or "nothing is left to do",
        )
        return bool(done)


def _kind(profile: Profile, shape: Shape) -> _Kind:
    return profile.name, shape.operation, shape.width, shape.height
