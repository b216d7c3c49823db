"""Which adapter speaks which API."""

from collections.abc import Callable, Mapping
from typing import Final

from app.domain.upstreams import Upstream
from app.safe_http import Guard
from workers.providers.upstream.imgprocessing import ImgProcessing
from workers.providers.upstream.line import Line
from workers.providers.upstream.modelslab import ModelsLab
from workers.providers.upstream.openai import OpenAI
from workers.providers.upstream.promise import Adapter
from workers.providers.upstream.realm import Realm

_ADAPTERS: Final[Mapping[str, Callable[[Line, str], Adapter]]] = {
    "imgprocessing": ImgProcessing,
    "modelslab": ModelsLab,
    "openai": OpenAI,
    "realm": Realm,
}


def adapter_of(upstream: Upstream, *, guard: Guard, key: str) -> Adapter:
    """Give the adapter for an upstream, with a connection pool of its own."""
    line = Line(
        base_url=upstream.base_url,
        guard=guard,
        timeout=upstream.timeout,
        key=key,
        connections=upstream.concurrency,
    )
    return _ADAPTERS[upstream.api](line, key)
