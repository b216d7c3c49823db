"""A small service on ModelsLab's realtime API: changes a picture by words and saves what comes of it.

Written for https://modelslab.com/api; nothing here knows Darkroom. To move in, change base URL and key:

    python examples/modelslab_client.py --base-url http://127.0.0.1:8000/api --key "$(cat .darkroom/api-key)"
"""

import argparse
import base64
import sys
import time
from pathlib import Path
from typing import Any

import requests

PICTURE = (
    "https://raw.githubusercontent.com/CompVis/stable-diffusion/main/data/inpainting_examples/"
    "overture-creations-5sI6fQgYIuo.png"
)
TIMEOUT = 60
GIVE_UP_SECONDS = 300.0
LONGEST_PAUSE = 10.0


class ModelsLab:
    """The two calls of the API that this service needs."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._session = requests.Session()

    def image_to_image(self, **members: Any) -> dict[str, Any]:
        """Have a picture changed; gives an answer that holds its links, however long that takes."""
        answer = self._post(f"{self._base_url}/v1/enterprise/realtime/img2img", members)
        end = time.monotonic() + GIVE_UP_SECONDS
        fetch_result, pause = answer.get("fetch_result"), float(answer.get("eta", 1))
        while answer["status"] == "processing":
            if time.monotonic() > end:
                sys.exit(f"not done within {GIVE_UP_SECONDS:g} s; fetch it later: {fetch_result}")
            time.sleep(min(pause, LONGEST_PAUSE))  # as its documentation asks for
            answer = self._post(str(fetch_result), {})
        return answer

    def download(self, url: str) -> bytes:
        """Give what lies behind a link."""
        answer = self._session.get(url, timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.content

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    def _post(self, url: str, members: dict[str, Any]) -> dict[str, Any]:
        answer = self._session.post(url, json={"key": self._key, **members}, timeout=TIMEOUT)
        body: dict[str, Any] = answer.json()
        if body["status"] not in {"success", "processing"}:
            sys.exit(f"HTTP {answer.status_code}: {body.get('message') or body.get('messege')}")
        return body


def named(picture: str) -> str:
    """Give what goes into init_image: a URL as it is, a file as base64 text."""
    if picture.startswith(("http://", "https://")):
        return picture
    return base64.b64encode(Path(picture).read_bytes()).decode()


def main() -> None:
    """Change one picture with the account that the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", default="https://modelslab.com/api")
    parser.add_argument("--key", required=True)
    parser.add_argument("--picture", default=PICTURE, help="URL or file")
    parser.add_argument("--prompt", default="a cat sitting on a bench")
    parser.add_argument("--queue", action="store_true", help="come back later instead of waiting")
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    api = ModelsLab(given.base_url, given.key)
    answer = api.image_to_image(
        prompt=given.prompt,
        negative_prompt="bad quality",
        init_image=named(given.picture),
        width="512",
        height="512",
        samples="1",
        temp=False,
        safety_checker=False,
        strength=0.7,
        seed=None,
        webhook=None,
        track_id=None,
        instant_response=given.queue,
    )
    given.output.mkdir(parents=True, exist_ok=True)
    for url in answer["output"]:
        path = given.output / url.rsplit("/", 1)[1]
        path.write_bytes(api.download(url))
        print(f"{path}: {answer['id']}")
    api.close()


if __name__ == "__main__":
    main()
