"""A small service written for the IMG Processing API: only its base URL and its key name who answers.

    python examples/imgprocessing_client.py --base-url http://127.0.0.1:8000/v1 --key KEY --out card.jpg

It has an image drawn, makes a smaller one of it, publishes that one, and downloads it as a visitor would.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import requests

VENDOR = "https://api.img-processing.com/v1"
TIMEOUT = 60
"""Seconds; how long the vendor's own client waits."""


class ImgProcessing:
    """The few endpoints that this service uses."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["x-api-key"] = key

    def imagine(self, name: str, prompt: str, seed: int) -> dict[str, Any]:
        """Have an image drawn from words."""
        return self._post("/images/imagine", {"name": name, "prompt": prompt, "seed": seed})

    def resize(self, image: dict[str, Any], width: int) -> dict[str, Any]:
        """Make a smaller image; the other side follows."""
        return self._post(f"/images/{image['id']}/resize", {"width": width})

    def publish(self, image: dict[str, Any]) -> dict[str, Any]:
        """Let everybody see an image."""
        return self._post(f"/images/{image['id']}/publish", None)

    def download(self, image: dict[str, Any]) -> bytes:
        """Fetch an image with the key."""
        answer = self._session.get(f"{self._base_url}/images/{image['id']}/download", timeout=TIMEOUT)
        self._refuse_problem(answer)
        return answer.content

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    def _post(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        answer = self._session.post(self._base_url + path, json=body, timeout=TIMEOUT)
        self._refuse_problem(answer)
        image: dict[str, Any] = answer.json()
        return image

    def _refuse_problem(self, answer: requests.Response) -> None:
        if not answer.ok:
            problem = answer.json()
            sys.exit(f"{problem['status']} {problem['error']}: {problem.get('message', '')}")


def main() -> None:
    """Make a card and say where it is."""
    parser = argparse.ArgumentParser(description="Draw, resize, publish and download one image.")
    parser.add_argument("--base-url", default=VENDOR)
    parser.add_argument("--key", required=True)
    parser.add_argument("--prompt", default="a lighthouse on a cliff at sunset, calm sea")
    parser.add_argument("--out", type=Path, default=Path("card.jpg"))
    asked = parser.parse_args()

    api = ImgProcessing(asked.base_url, asked.key)
    drawn = api.imagine("card", asked.prompt, seed=42)
    card = api.publish(api.resize(drawn, width=320))
    with_key = api.download(card)
    api.close()

    seen = requests.get(card["url"], timeout=TIMEOUT)
    if seen.content != with_key:
        sys.exit(f"{card['url']} shows something else than the download")
    asked.out.write_bytes(with_key)
    size = f"{card['width']}x{card['height']}"
    sys.stdout.write(f"{card['id']} {size} {card['format']} {card['size']} bytes\n{card['url']}\n")


if __name__ == "__main__":
    main()
