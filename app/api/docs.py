"""/openapi.json, and /docs: Swagger UI from an installed package, so that no page asks another host."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import orjson
from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as Redirect

from app import __version__
from app.api import health, imgprocessing, jobs, models, modelslab, openai, outputs, realm, webhooks
from app.api.openapi import document
from app.api.services import Services
from app.errors import NotFound

OPERATIONS: Final = tuple(
    operation
    for room in (jobs, outputs, webhooks, realm, models, imgprocessing, modelslab, openai, health)
    for operation in room.OPERATIONS
)
"""Every endpoint that the document describes, in the order in which /docs shows them."""

_VENDORED: Final = ("swagger-ui.css", "swagger-ui-bundle.js")
_INITIALISER: Final = b"""\
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  deepLinking: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  // Without this box, ticked at first, an optional file that nobody chose is left out and not sent empty.
  plugins: [() => ({ components: { ParameterIncludeEmpty: () => null } })],
});
"""
_PAGE_HEADERS: Final = {
    # Swagger UI sets style attributes, and shows a downloaded image from a blob.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, kw_only=True)
class _Asset:
    content: bytes
    media_type: str
    version: str
    """Of the content; stands in the address, so that browsers may keep the asset for ever."""


def blueprint(services: Services, *, package: str = "swagger_ui") -> Blueprint:
    """Give the document and its page; both are read or made when they are first asked for.

    Args:
        package: where Swagger UI's files lie, in `static`; without it /docs says how to install it.
    """
    made = Blueprint("docs", __name__, template_folder="templates")
    written = cache(lambda: _write(services.settings.public_url))
    assets = cache(lambda: _read_assets(package))

    @made.get("/")
    def index() -> Redirect:
        return redirect("docs")

    @made.get("/openapi.json")
    def openapi() -> Response:
        answer = Response(written(), mimetype="application/json")
        answer.headers["Cache-Control"] = "no-cache"
        return _unless_known(answer, sha256(answer.data).hexdigest())

    @made.get("/docs")
    def page() -> Response:
        versions = {name: asset.version for name, asset in assets().items()}
        status = 200 if versions else 503
        answer = Response(render_template("docs.html", versions=versions), status, _PAGE_HEADERS)
        answer.mimetype = "text/html"
        return answer

    @made.get("/docs/assets/<name>")
    def asset(name: str) -> Response:
        return _serve(assets(), name)

    return made


def _write(public_url: str | None) -> bytes:
    return orjson.dumps(document(OPERATIONS, version=__version__, server_url=public_url))


def _serve(assets: dict[str, _Asset], name: str) -> Response:
    found = assets.get(name)
    if found is None:
        raise NotFound
    answer = Response(found.content, mimetype=found.media_type)
    answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return _unless_known(answer, found.version)


def _unless_known(answer: Response, version: str) -> Response:
    """Give the answer with its ETag, and nothing but that to who has this version.

    Not by werkzeug's `make_conditional`: it reads dates too, and of year 99999999999 that was a 500.
    """
    answer.set_etag(version)
    if request.if_none_match.contains_weak(version):
        answer.status_code = 304
        answer.set_data(b"")
    return answer


def _read_assets(package: str) -> dict[str, _Asset]:
    """Give the files that the page needs by name; none when the package or one of its files is missing."""
    # Found without importing it: only its files are wanted, and its code loads YAML and template engines.
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0], "static")
    try:
        vendored = {name: _asset(name, (folder / name).read_bytes()) for name in _VENDORED}
    except FileNotFoundError:
        return {}
    return vendored | {"docs.js": _asset("docs.js", _INITIALISER)}


def _asset(name: str, content: bytes) -> _Asset:
    media_type = "text/css" if name.endswith(".css") else "text/javascript"
    return _Asset(content=content, media_type=media_type, version=sha256(content).hexdigest()[:12])
