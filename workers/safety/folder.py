"""A model in a folder: found out at start what it is, loaded when the first image must be checked."""

import importlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from PIL import Image

from app.errors import SafetyDown, SetupError
from app.settings import Settings
from workers.safety.views import squares

Look = Callable[[Sequence[Image.Image]], bool]
"""Whether any of these squares is flagged; called by one thread at a time."""

_DIFFUSERS: Final = "StableDiffusionSafetyChecker"
_CLASSIFIERS: Final = "ForImageClassification"
"""How transformers' architectures that give labels to an image end."""
_WITHOUT_NAMES: Final = {"0": "LABEL_0", "1": "LABEL_1"}
"""The labels of a configuration that names none."""
_THRESHOLD: Final = Settings.model_fields["safety_threshold"].default
_LIBRARIES: Final = ("torch", "transformers", "diffusers")
_FAULTS: Final = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
    ImportError,
    MemoryError,
    AssertionError,
)
"""What torch and transformers raise of broken files, missing memory and files of other versions."""
_LONGEST_REASON: Final = 300


@dataclass(frozen=True, kw_only=True)
class Found:
    """A model in a folder, not loaded.

    Attributes:
        loader: the module whose `load` makes a `Look` of it.
        weights: the folder of its configuration and weights.
        processor: the folder of its image processor's configuration.
        labels: of a classifier: those that flag an image.
        threshold: of a classifier: the probability from which on they do.
        together: of a classifier: whether an image has exactly one label, so that probabilities add up.
    """

    loader: str
    weights: Path
    processor: Path
    labels: frozenset[str] = frozenset()
    threshold: float = _THRESHOLD
    together: bool = True


class FolderChecker:
    """Asks the model in DARKROOM_SAFETY_FOLDER, on the CPU, in float32; nothing is ever downloaded.

    On the CPU, so that a check never waits for a GPU that draws, nor takes its memory. Threads share the
    model, one at a time; torch uses all cores for each.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._look: Look | None = None

    def flagged(self, image: Image.Image) -> bool:
        """See `Checker`."""
        shown = squares(image)
        with self._lock:
            try:
                if self._look is None:
                    self._look = _load(find(self._settings))
                return self._look(shown)
            except SetupError as error:
                raise SafetyDown(error.message) from error
            except _FAULTS as error:
                reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
                raise SafetyDown(
                    f"The model in {self._settings.safety_folder} cannot check an image: {reason}"
                ) from error


def find(settings: Settings) -> Found:
    """Give what lies in DARKROOM_SAFETY_FOLDER, without importing torch.

    It may be the folder of a safety checker, of a whole pipeline that has one, or of a classifier.

    Raises:
        SetupError: no model that can be used, labels that do not fit it, or libraries that are missing.
    """
    folder = settings.safety_folder
    assert folder is not None
    weights = folder / "safety_checker" if (folder / "safety_checker").is_dir() else folder
    configuration = _read(weights / "config.json")
    if not any(weights.glob("*.safetensors")):
        raise _wrong(f"{weights} holds no weights as .safetensors; pickled ones could run any code")
    named = configuration.get("architectures")
    kind = str(named[0]) if isinstance(named, list) and named else "model of no named architecture"
    if kind == _DIFFUSERS:
        found = _safety_checker(settings, weights)
    elif kind.endswith(_CLASSIFIERS):
        found = _classifier(settings, weights, configuration)
    else:
        raise _wrong(f"{weights} is a {kind}; it must be a {_DIFFUSERS} or a …{_CLASSIFIERS}")
    if missing := [name for name in _LIBRARIES if find_spec(name) is None]:
        raise _wrong(f"it needs {' and '.join(missing)}: make gpu")
    return found


def _safety_checker(settings: Settings, weights: Path) -> Found:
    if settings.safety_labels or settings.safety_threshold != _THRESHOLD:
        raise SetupError(
            "DARKROOM_SAFETY_LABELS and DARKROOM_SAFETY_THRESHOLD are for classifiers; leave them out, as "
            f"DARKROOM_SAFETY_FOLDER holds a {_DIFFUSERS}, which has its own thresholds."
        )
    processor = _processor(weights, weights.parent / "feature_extractor")
    return Found(loader="workers.safety.diffusers", weights=weights, processor=processor)


def _classifier(settings: Settings, weights: Path, configuration: dict[str, Any]) -> Found:
    named = configuration.get("id2label")
    known = set(map(str, (named if isinstance(named, dict) and named else _WITHOUT_NAMES).values()))
    labels = frozenset(settings.safety_labels)
    together = configuration.get("problem_type") != "multi_label_classification"
    if not labels or not labels <= known:
        raise SetupError(
            "DARKROOM_SAFETY_LABELS must be those labels of the classifier in DARKROOM_SAFETY_FOLDER for "
            f"which an image is flagged. It has {', '.join(sorted(known))}."
        )
    if together and labels == known:
        raise SetupError(
            "DARKROOM_SAFETY_LABELS are all labels the classifier in DARKROOM_SAFETY_FOLDER has: "
            "every image would be flagged. Leave out the harmless ones."
        )
    return Found(
        loader="workers.safety.classification",
        weights=weights,
        processor=_processor(weights),
        labels=labels,
        threshold=settings.safety_threshold,
        together=together,
    )


def _processor(*places: Path) -> Path:
    for place in places:
        if (place / "preprocessor_config.json").is_file():
            return place
    raise _wrong(f"{' and '.join(map(str, places))} holds no preprocessor_config.json")


def _read(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_bytes())
    except OSError as error:
        raise _wrong(f"{file} cannot be read ({error.strerror})") from None
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise _wrong(f"{file} is no JSON object")
    return read


def _wrong(what: str) -> SetupError:
    return SetupError(f"DARKROOM_SAFETY_FOLDER: {what}.")


def _load(found: Found) -> Look:
    load: Callable[[Found], Look] = importlib.import_module(found.loader).load
    return load(found)
