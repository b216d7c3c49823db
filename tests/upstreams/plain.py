"""A customer of every vendor in plain `requests`: what the fakes are tried with before any adapter."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import requests
from PIL import Image

from tests.upstreams.moods import Kind
from tests.upstreams.openai import PLAIN
from tests.upstreams.upstream import Upstream

PROMPT, SEED = "a boat", 7
ENTERPRISE = "/api/v1/enterprise/realtime"


@dataclass(frozen=True)
class Customer:
    """Orders one small picture of `PROMPT`; with `SEED` where the vendor takes one."""

    fake: Upstream
    timeout: float = 5.0
    stream: bool = False
    """Whether bodies are left to be read."""

    def get(self, path: str, **more: Any) -> requests.Response:
        """Ask for a path or URL, with the key."""
        return self._send("GET", path, **more)

    def post(self, path: str, **more: Any) -> requests.Response:
        """Post to a path or URL, with the key."""
        return self._send("POST", path, **more)

    def order(self, path: str | None = None, **members: Any) -> requests.Response:
        """Submit; members come on top of what is ordered anyway, None leaves one out."""
        where, body = {
            "modelslab": (
                f"{ENTERPRISE}/text2img",
                {"key": self.fake.key, "prompt": PROMPT, "seed": SEED, "width": "64", "height": "48"},
            ),
            "imgprocessing": ("/v1/images/imagine", {"name": "one", "prompt": PROMPT, "seed": SEED}),
            "realm": (
                "/v1/images/generate",
                {"modelId": "mod_landscape", "prompt": PROMPT, "width": 64, "height": 48},
            ),
            "openai": (
                "/v1/images/generations",
                {"model": PLAIN, "prompt": PROMPT, "seed": SEED, "size": "64x48"},
            ),
        }[self.fake.vendor]
        body = {name: value for name, value in (body | members).items() if value is not None}
        return self.post(path or where, json=body)

    def look(self, order: requests.Response) -> requests.Response:
        """Poll for what an order's answer names."""
        body = order.json()
        match self.fake.vendor:
            case "modelslab":
                return self.post(f"{ENTERPRISE}/fetch/{body['id']}", json={"key": self.fake.key})
            case "realm":
                return self.get(f"/v1/images/jobs/{body['jobId']}")
        return self.get(f"/v1/images/{body['id']}")

    def urls(self, order: requests.Response) -> list[str]:
        """Give where the pictures of an order are, after one poll where that is what tells."""
        body = order.json()
        match self.fake.vendor:
            case "modelslab":
                return list(body["output"] or self.look(order).json()["output"])
            case "realm":
                return [result["url"] for result in self.look(order).json()["results"]]
            case "imgprocessing":
                return [f"{self.fake.base_url}/v1/images/{body['id']}/download"]
        return [item["url"] for item in body["data"]]

    def fetch(self, order: requests.Response) -> list[tuple[bytes, str]]:
        """Give bytes and content type of every picture of an order."""
        if self.fake.vendor == "openai" and "b64_json" in order.text:
            return [(base64.b64decode(item["b64_json"]), "") for item in order.json()["data"]]
        answers = [self.get(url) for url in self.urls(order)]
        return [(answer.content, answer.headers["Content-Type"]) for answer in answers]

    def meet(self, kind: Kind, order: requests.Response) -> requests.Response:
        """Send a request of one kind, about an order that went well."""
        if kind is Kind.SUBMIT:
            return self.order()
        return self.look(order) if kind is Kind.POLL else self.get(self.urls(order)[0], allow_redirects=False)

    def _send(self, method: str, path: str, **more: Any) -> requests.Response:
        url = path if path.startswith("http") else self.fake.base_url + path
        headers = {
            "modelslab": {},
            "imgprocessing": {"x-api-key": self.fake.key},
            "realm": {"X-API-Key": self.fake.key},
            "openai": {"Authorization": f"Bearer {self.fake.key}"},
        }[self.fake.vendor]
        timeout = more.pop("timeout", self.timeout)
        headers = more.pop("headers", headers)
        return requests.request(method, url, headers=headers, timeout=timeout, stream=self.stream, **more)


def opened(data: bytes) -> Image.Image:
    """Decode a picture."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
