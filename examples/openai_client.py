"""A small service on OpenAI's Images API: draws a picture, then changes a part of it, and saves both.

Written with OpenAI's own library; nothing here knows Darkroom. To move in, change base URL and key:

    python examples/openai_client.py --base-url http://127.0.0.1:8000/v1 --key "$(cat .darkroom/api-key)"

Needs: pip install openai pillow
"""

import argparse
import base64
import io
from pathlib import Path

from openai import OpenAI
from openai.types import ImagesResponse
from PIL import Image

SIDE = 512


def save(answer: ImagesResponse, path: Path) -> None:
    """Write the answer's first image to a file."""
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    path.write_bytes(base64.b64decode(answer.data[0].b64_json))
    print(f"{path}: {answer.size}, {answer.output_format}")


def mask_of_the_sky() -> bytes:
    """Give a PNG that is transparent in its upper half: there the picture may change, and nowhere else."""
    mask = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, SIDE, SIDE // 2))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """Make two pictures with the account that the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", default="https://api.openai.com/v1")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", default="gpt-image-1")
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)

    with OpenAI(base_url=given.base_url, api_key=given.key) as client:
        names = {model.id for model in client.models.list()}
        if given.model not in names:
            parser.error(f"there is no model {given.model}; there are {', '.join(sorted(names))}")

        valley = given.output / "valley.png"
        save(
            client.images.generate(
                model=given.model,
                prompt="A valley with a lake between mountains at noon, clear sky",
                size=f"{SIDE}x{SIDE}",
                quality="high",
            ),
            valley,
        )
        with valley.open("rb") as image:
            answer = client.images.edit(
                model=given.model,
                image=image,
                mask=("mask.png", mask_of_the_sky(), "image/png"),
                prompt="The same valley under a starry night sky",
            )
        save(answer, given.output / "night.png")


if __name__ == "__main__":
    main()
