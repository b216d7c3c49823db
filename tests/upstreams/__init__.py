"""Fake upstreams: real servers on loopback that speak the vendors' wire forms and misbehave on script.

Written from the vendors' documents alone, so that an adapter that suits them suits the vendors.

    with upstream("modelslab") as fake:
        fake.base_url, fake.key           # http://127.0.0.1:PORT without a path, and the account's key
        fake.script(moods.RESET)          # the next submit is charged and its connection reset
        fake.script(moods.SERVER_ERROR.on(Kind.POLL), moods.EXPIRED.with_status(410))
        fake.always(moods.STUCK)          # every submit; `fake.calm()` forgets
        ...
        assert len(fake.charged) == 1     # what the vendor bills, whatever became of the answer

Moods are used up in order, one per request of their `kind`; `with_status`, `lasting`, `for_polls`, `on` and
`charging` adjust one. `cases()` gives every vendor with every mood on every kind of request it can strike.

What each vendor answers is where its paths are:

* `modelslab`: /api/v1/enterprise/realtime/ and /api/v6/realtime/: text2img, img2img, inpaint, fetch/{id},
  fetch, system_details; /api/v6/base64_to_url; /api/v3/delete_image. White in a mask is where to change.
* `imgprocessing`: /v1/images/imagine, /v1/images (list), /v1/images/{id}, …/download, …/publish, …/unpublish,
  DELETE, /v1/images/upload. Always 1024 × 1024 JPEG.
* `realm`: /v1/images/generate, /modify, /jobs/{id}, /v1/models. Models `mod_landscape`, `mod_portrait`; white
  in a mask is where to change; it has no seed in orders, and tells the one that it chose in results.
* `openai`: /v1/images/generations, /edits, /v1/models. Models `gpt-image-1` (base64 always; refuses
  response_format, seed and all it does not know; sizes in steps of 16) and `painter` (response_format
  honoured, url unless said; seed honoured). Alpha 0 in a mask is where to change.

Pictures are drawn by prompt, seed and index alone: `shows(image, prompt, seed=…, index=…)` recognises one
after re-encoding. An input image is blended in by strength, and only inside the mask.
"""

from tests.upstreams import moods
from tests.upstreams.ledger import Call, Charge
from tests.upstreams.moods import MOODS, VENDORS, Kind, Mood, cases
from tests.upstreams.pictures import draw, shows
from tests.upstreams.upstream import Upstream
from tests.upstreams.wire import Upload

__all__ = [
    "MOODS",
    "VENDORS",
    "Call",
    "Charge",
    "Kind",
    "Mood",
    "Upload",
    "Upstream",
    "cases",
    "draw",
    "moods",
    "shows",
    "upstream",
]


def upstream(vendor: str) -> Upstream:
    """Give a fake of one of `VENDORS`; it listens for as long as its context lasts.

    Leaving the context ends every answer under way, and raises AssertionError when the fake itself broke.
    """
    return Upstream(vendor)
