"""Providers that draw over HTTP: one core for all vendors, and one small adapter for each one's wire form.

The way of an order: `provider` (which images, resumed or bought) → an adapter (`modelslab`, `openai`,
`imgprocessing`, `realm`: words in, words out) → `line` (HTTP with limits) → `images` (what came, verified).
"""

from workers.providers.upstream.provider import UpstreamProvider

__all__ = ["UpstreamProvider"]
