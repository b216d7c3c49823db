"""Which adapter speaks which API."""

from collections.abc import Callable, Mapping
from typing import Final

from app.domain.upstreams import Upstream as Account
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


def adapter_of(account: Account, *, key: str) -> Adapter:
    """Give the adapter for an account, with a connection pool of its own."""
    line = Line(base_url=account.base_url, timeout=account.timeout, key=key, connections=account.concurrency)
    return _ADAPTERS[account.api](line, key)
