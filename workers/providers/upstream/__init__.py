"""Providers that draw over HTTP: one core for all vendors, and one small adapter for each one's wire form.

The way of an order: `provider` (which images, in which calls) → `purchases` (resumed or bought, with `books`
of what is paid) → an adapter (`modelslab`, `openai`, `imgprocessing`, `realm`: words in, words out) → `line`
(HTTP with limits) → `images` (what came, verified). `health` tells all workers how the vendor is doing.
"""

from workers.providers.upstream.provider import UpstreamProvider

__all__ = ["UpstreamProvider"]
