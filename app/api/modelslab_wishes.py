"""From a ModelsLab request to a wish: its model and size, its prompt as it is drawn, its images and terms."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from app.api import http
from app.api.modelslab_families import Family
from app.api.modelslab_models import MAX_SIDE, USUAL_SIDE, ImageToImage, Inpaint, TextToImage
from app.api.services import Services
from app.buckets import Buckets
from app.db.door import Once
from app.domain import styles
from app.domain.catalog import Model
from app.domain.spec import Operation
from app.domain.webhook import Form
from app.errors import (
    FieldProblem,
    ForbiddenAddress,
    InvalidFields,
    UnknownModel,
    Unreachable,
)
from app.safe_http import urls
from app.wish import Hook, Terms, Upload, Wish

ACCEPTED_IMAGES: Final = ("PNG", "JPEG", "WEBP")
_TEMPORARY: Final = timedelta(hours=24)
"""How long images stay that are asked for with `temp`, by the ModelsLab page."""


class Wishes:
    """Makes wishes of requests, for the current request's caller, and submits them; one per web process."""

    def __init__(self, services: Services, buckets: Buckets) -> None:
        self._services = services
        self._buckets = buckets

    def of(self, wished: TextToImage, operation: Operation, family: Family) -> Wish:
        """Give what a request wants done; its images are fetched, its webhook's address is looked up.

        Raises:
            InvalidFields: a style, an image or the webhook cannot be used.
            UnknownModel: there is no such model.
            StorageDown, DatabaseDown: what must be looked up cannot be.
        """
        model = self._model(wished, family)
        styled = self._styled(wished, operation, family)
        hook = self._hook(wished)
        images = self._images(wished)
        width, height = _size(wished, operation, model, images.get("image"))
        settings = self._services.settings
        looks = family.checks and settings.checks_safety
        return Wish(
            operation=operation,
            model=model.id,
            prompt=styled.prompt,
            negative_prompt=styled.negative_prompt,
            width=width,
            height=height,
            num_inference_steps=wished.num_inference_steps,
            guidance_scale=wished.guidance_scale,
            strength=wished.strength if isinstance(wished, ImageToImage) else None,
            seed=wished.seed,
            num_images=wished.samples,
            image=images.get("image"),
            mask_image=images.get("mask_image"),
            safety_checker=looks if wished.safety_checker is None else wished.safety_checker,
            safety_checker_type=wished.safety_checker_type or family.censor,
            fields={"model": "model_id" if family.is_community else "model", "num_images": "samples"},
            terms=self._terms(wished, hook, echo=_echo(wished, operation, family)),
        )

    def submit(self, wish: Wish, once: Once | None) -> UUID:
        """Write the job down and give its id; raises what `Intake.submit` does."""
        account_id = http.caller().account_id
        try:
            accepted = self._services.intake.submit(
                wish, account_id=account_id, dialect="modelslab", once=once
            )
        except ForbiddenAddress as error:
            raise _refused("webhook", error.message) from None
        return accepted.job_id

    def _model(self, wished: TextToImage, family: Family) -> Model:
        catalog = self._services.intake.catalog
        name = wished.model_id if family.is_community else None
        if name is None:
            preset = self._services.settings.modelslab_model
            return catalog.models[0] if preset is None else catalog.find(preset)
        try:
            return catalog.find(name)
        except UnknownModel:
            raise UnknownModel(
                f"Model not found: {name[:80]}. GET /v1/models lists what there is; without model_id the "
                "operator's choice draws."
            ) from None

    def _styled(self, wished: TextToImage, operation: Operation, family: Family) -> styles.Styled:
        prompt = wished.prompt
        if _enhances(wished, operation, family):
            prompt = styles.enhanced(prompt, style=wished.enhance_style)
        return styles.load().apply(
            prompt,
            wished.negative_prompt or "",
            style=wished.enhance_style,
            allow_adult=self._services.settings.adult_styles,
        )

    def _hook(self, wished: TextToImage) -> Hook | None:
        if wished.webhook is None:
            return None
        url = wished.webhook.strip()
        try:
            checked = self._services.webhook_guard.check(url).url
        except ForbiddenAddress as error:
            raise _refused("webhook", error.message) from None
        except Unreachable:
            # The name cannot be looked up at the moment; it will be when there is something to tell.
            checked = urls.parse(url).url
        return Hook(url=checked, form=Form.MODELSLAB)

    def _images(self, wished: TextToImage) -> dict[str, Upload]:
        named = {}
        if isinstance(wished, ImageToImage):
            named["image"] = ("init_image", wished.init_image)
        if isinstance(wished, Inpaint):
            named["mask_image"] = ("mask_image", wished.mask_image)
        return {role: self._image(text, field=field) for role, (field, text) in named.items()}

    def _image(self, text: str, *, field: str) -> Upload:
        base_url = http.base_url(self._services.settings)
        try:
            if (url := _url_only(text)) is not None:
                urls.parse(url)
            return self._services.sources.named(
                text, field=field, base_url=base_url, accepted=ACCEPTED_IMAGES
            )
        except ForbiddenAddress as error:
            raise _refused(field, error.message) from None

    def _terms(self, wished: TextToImage, hook: Hook | None, *, echo: dict[str, Any]) -> Terms:
        settings = self._services.settings
        target = None if wished.temp else self._buckets.current(http.caller().account_id)
        return Terms(
            test=http.caller().test,
            numbered=True,
            track_id=None if wished.track_id in {None, ""} else str(wished.track_id),
            webhook=hook,
            base_url=http.base_url(settings),
            storage_target_id=None if target is None else target.id,
            retain=min(_TEMPORARY, settings.retention) if wished.temp else None,
            echo=echo,
        )


def _enhances(wished: TextToImage, operation: Operation, family: Family) -> bool:
    return operation in family.enhances if wished.enhance_prompt is None else wished.enhance_prompt


def _size(wished: TextToImage, operation: Operation, model: Model, image: Upload | None) -> tuple[int, int]:
    """The size asked for; without one the image's for img2img, else 512; both as far as they can be had."""
    limits = model.size.model_copy(update={"max": min(model.size.max, MAX_SIDE)})
    usual = limits.fit(USUAL_SIDE, USUAL_SIDE)
    if operation is Operation.IMAGE_TO_IMAGE and image is not None and not (wished.width or wished.height):
        usual = limits.fit(*image.size)
    return wished.width or usual[0], wished.height or usual[1]


def _echo(wished: TextToImage, operation: Operation, family: Family) -> dict[str, Any]:
    """What answers and webhooks tell again; `base64` also tells the worker what a customer's bucket gets."""
    meta: dict[str, Any] = {
        "base64": _yes(wished.base64),
        "temp": _yes(wished.temp),
        "enhance_prompt": _yes(_enhances(wished, operation, family)),
        "enhance_style": wished.enhance_style,
        "instant_response": _yes(wished.instant_response),
        "track_id": wished.track_id,
    }
    if isinstance(wished, ImageToImage):
        meta["init_image"] = _url_only(wished.init_image)
    if isinstance(wished, Inpaint):
        meta["mask_image"] = _url_only(wished.mask_image)
    return {"base64": bool(wished.base64), "track_id": wished.track_id, "meta": meta}


def _yes(value: bool | None) -> str:  # noqa: FBT001 - the value to be told
    return "yes" if value else "no"


def _url_only(text: str) -> str | None:
    """A link is told again; an image that was sent as text is not."""
    return text.strip() if http.is_address(text) else None


def _refused(field: str, message: str) -> InvalidFields:
    return InvalidFields(FieldProblem(field=field, message=message))
