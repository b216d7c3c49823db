"""Prompts as a model reads them: each encoded on its own, so that a batch holds what single runs hold.

Encoded together, a negative prompt that some rows lack would have to be replaced by an empty one, and SDXL
draws another picture then (gpu.md 2.1).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from app.domain.profiles import Family, Profile

_KEPT: Final = 32
"""Encoded prompts kept per model: 20 MB for SDXL, 130 MB for Flux."""

_NAMES: Final[dict[Family, tuple[str, ...]]] = {
    Family.SD15: ("prompt_embeds", "negative_prompt_embeds"),
    Family.SDXL: (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
    Family.FLUX: ("prompt_embeds", "pooled_prompt_embeds"),
}
"""What each family's `encode_prompt` gives, in its order; Flux's third, the ids of places, is made anew."""

Embeddings = dict[str, Any]
Wording = tuple[str, str | None]
"""A prompt and its negative prompt; None is not the same as an empty one."""


class Prompts:
    """Encodes prompts for one pipeline, and remembers the latest."""

    def __init__(self, pipe: Any, profile: Profile) -> None:
        self._pipe = pipe
        self._profile = profile
        self._known: OrderedDict[tuple[Wording, bool], Embeddings] = OrderedDict()

    def together(
        self, wordings: Sequence[Wording], *, guided: bool, before_each: Callable[[], None] = lambda: None
    ) -> Embeddings:
        """Give the arguments of a call with one row per wording.

        Args:
            guided: whether the call looks at negative prompts.
            before_each: called before each row is looked at.
        """
        rows = []
        for wording in wordings:
            before_each()
            rows.append(self._one(wording, guided=guided))
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def cuts(self, wording: Wording) -> list[str]:
        """Give a sentence for each of the two that is longer than the model reads."""
        named = zip(("prompt", "negative_prompt"), wording, strict=True)
        return [
            f"{name} was cut at {self._limit} tokens, as that is all the model reads"
            for name, text in named
            if text and self._length(text) > self._limit
        ]

    @property
    def _limit(self) -> int:
        if self._profile.family is Family.FLUX:
            return self._profile.max_sequence_length
        return int(self._pipe.tokenizer.model_max_length)

    def _length(self, text: str) -> int:
        """Count tokens with start and end. Flux reads with T5; CLIP only gives it the gist."""
        flux = self._profile.family is Family.FLUX
        tokenizer = self._pipe.tokenizer_2 if flux else self._pipe.tokenizer
        return len(tokenizer(text, truncation=False, verbose=False).input_ids)

    def _one(self, wording: Wording, *, guided: bool) -> Embeddings:
        key = (wording, guided)
        if key not in self._known:
            self._known[key] = self._encoded(wording, guided=guided)
        self._known.move_to_end(key)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return self._known[key]

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not read by mypy
    def _encoded(self, wording: Wording, *, guided: bool) -> Embeddings:
        prompt, negative = wording
        where = self._pipe._execution_device  # noqa: SLF001 - the GPU, also for weights that wait beside it
        common = {"prompt": prompt, "device": where, "num_images_per_prompt": 1}
        if self._profile.family is Family.FLUX:
            found = self._pipe.encode_prompt(
                prompt_2=None, max_sequence_length=self._profile.max_sequence_length, **common
            )
        else:
            found = self._pipe.encode_prompt(
                negative_prompt=negative, do_classifier_free_guidance=guided, **common
            )
        named = zip(_NAMES[self._profile.family], found, strict=False)
        return {name: tensor for name, tensor in named if tensor is not None}
