"""A small service on the Realm AI Images API: makes a picture, then changes it, and saves both.

Written for https://api.realm.ai/v1; nothing here knows Darkroom. To move in, change base URL and key:

    python examples/realm_client.py --base-url http://127.0.0.1:8000/v1 --key "$(cat .darkroom/api-key)"
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import requests

POLL_SECONDS = 0.5
GIVE_UP_SECONDS = 120.0


class Realm:
    """The three calls of the API that this service needs."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["X-API-Key"] = key

    def generate(self, **fields: Any) -> str:
        """Ask for a picture; gives the job's id."""
        answer = self._session.post(f"{self._base_url}/images/generate", json=fields, timeout=30)
        return self._job_id(answer)

    def modify(self, image: Path, **fields: Any) -> str:
        """Ask for a changed picture; gives the job's id."""
        with image.open("rb") as file:
            answer = self._session.post(
                f"{self._base_url}/images/modify", data=fields, files={"image": file}, timeout=30
            )
        return self._job_id(answer)

    def results(self, job_id: str) -> list[dict[str, Any]]:
        """Wait for a job and give its results; ends the program when the job failed."""
        end = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < end:
            answer = self._session.get(f"{self._base_url}/images/jobs/{job_id}", timeout=30)
            answer.raise_for_status()
            job = answer.json()
            if job["status"] == "completed":
                results: list[dict[str, Any]] = job["results"]
                return results
            if job["status"] == "failed":
                sys.exit(f"{job_id} failed: {job['errorCode']}")
            time.sleep(POLL_SECONDS)  # that API has no other way to wait
        sys.exit(f"{job_id} did not end within {GIVE_UP_SECONDS:g} s")

    def save(self, result: dict[str, Any], path: Path) -> None:
        """Download a result."""
        answer = self._session.get(result["url"], timeout=30)
        answer.raise_for_status()
        path.write_bytes(answer.content)
        print(f"{path}: {result['imageId']}, seed {result['seed']}")

    @staticmethod
    def _job_id(answer: requests.Response) -> str:
        if answer.status_code != requests.codes.accepted:
            sys.exit(f"HTTP {answer.status_code}: {answer.text}")
        job_id: str = answer.json()["jobId"]
        return job_id


def main() -> None:
    """Make two pictures with the account that the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", default="https://api.realm.ai/v1")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", default="mod_zyx987")
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    realm = Realm(given.base_url, given.key)
    given.output.mkdir(parents=True, exist_ok=True)

    portrait = given.output / "portrait.png"
    job_id = realm.generate(
        modelId=given.model,
        prompt="A photorealistic portrait of a woman with cyberpunk neon background, high detail",
        negativePrompt="low quality, blurry, text, watermark, ugly",
        width=512,
        height=512,
        guidanceScale=7.5,
        numOutputs=1,
    )
    realm.save(realm.results(job_id)[0], portrait)
    job_id = realm.modify(portrait, modelId=given.model, prompt="the same in winter, snow", strength=0.6)
    realm.save(realm.results(job_id)[0], given.output / "winter.png")


if __name__ == "__main__":
    main()
