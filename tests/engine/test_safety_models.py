"""Models that look at images: the real code of diffusers and transformers on tiny ones, built here.

What every checker promises is in tests/contracts/test_checkers.py; here is what could go wrong in silence.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.errors import SafetyDown
from tests import checkers
from tests.checkers import BAD, GOOD, copied, picture, settings_with
from workers.safety import Checker, open_checker, verify

torch = pytest.importorskip("torch", reason="the extra gpu is not installed")
pytest.importorskip("diffusers", reason="the extra gpu is not installed")
files = pytest.importorskip("safetensors.torch", reason="the extra gpu is not installed")

THREE = ("nsfw", "normal", "drawing")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder whose safety checker flags red."""
    return checkers.safety_checker(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that gives red the label nsfw, and to everything else the other two alike."""
    return checkers.classifier(tmp_path_factory.mktemp("classifier"), labels=THREE)


def opened(folder: Path, **changes: object) -> Checker:
    settings = settings_with(safety_folder=folder, **changes)
    verify(settings)
    found = open_checker(settings)
    assert found is not None
    return found


def verdicts(folder: Path, **changes: object) -> list[bool]:
    checker = opened(folder, **changes)
    return [checker.flagged(picture(colour)) for colour in (BAD, GOOD)]


def reason(folder: Path, **changes: object) -> str:
    """Why there is no verdict, though nothing was wrong at start."""
    checker = opened(folder, **changes)
    with pytest.raises(SafetyDown) as caught:
        checker.flagged(picture(GOOD))
    return caught.value.message


def rewrite(folder: Path, **changed: Any) -> None:
    """Put other weights into a folder's file; None leaves one out."""
    (file,) = folder.rglob("model.safetensors")
    weights = {**files.load_file(file), **changed}
    files.save_file({n: w for n, w in weights.items() if w is not None}, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("margin", "flagged"), [(-2.0, True), (2.0, False)])
def test_thresholds_decide_what_a_safety_checker_flags(margin: float, flagged: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    assert verdicts(checkers.safety_checker(tmp_path, margin=margin)) == [flagged, flagged]


def test_a_safety_checker_by_itself_lies_with_its_image_processor(pipeline: Path, tmp_path: Path) -> None:
    alone = copied(pipeline / "safety_checker", tmp_path / "alone")
    shutil.copy(pipeline / "feature_extractor" / "preprocessor_config.json", alone)

    assert verdicts(alone) == verdicts(pipeline / "safety_checker") == [True, False]


def test_weights_under_the_names_they_were_published_with_are_the_same_weights(
    pipeline: Path, tmp_path: Path
) -> None:
    published = copied(pipeline, tmp_path / "published")
    (file,) = published.rglob("model.safetensors")
    weights = {
        f"vision_model.{name}" if name.startswith("vision_model.") else name: weight
        for name, weight in files.load_file(file).items()
    }
    weights["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    files.save_file(weights, file, metadata={"format": "pt"})

    assert verdicts(published) == [True, False]


def test_a_flagged_image_is_not_announced_as_a_black_one(pipeline: Path) -> None:
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]  # a handler of one line
    announcer = logging.getLogger("diffusers.pipelines.stable_diffusion.safety_checker")
    announcer.addHandler(listener)
    try:
        assert verdicts(pipeline) == [True, False]
    finally:
        announcer.removeHandler(listener)

    assert said == []


def test_a_model_is_loaded_once_and_a_mended_one_is_loaded_then(pipeline: Path, tmp_path: Path) -> None:
    folder = copied(pipeline, tmp_path / "folder", weights=b"torn")
    checker = opened(folder)
    with pytest.raises(SafetyDown, match="broken"):
        checker.flagged(picture(BAD))

    shutil.copytree(pipeline, folder, dirs_exist_ok=True)
    assert checker.flagged(picture(BAD)) is True

    shutil.rmtree(folder)
    assert checker.flagged(picture(GOOD)) is False


def test_a_missing_weight_is_never_made_up(pipeline: Path, classifier: Path, tmp_path: Path) -> None:
    checker, labels = copied(pipeline, tmp_path / "a"), copied(classifier, tmp_path / "b")
    rewrite(checker, **{"visual_projection.weight": None})
    rewrite(labels, **{"classifier.weight": None})

    assert "lacks 1 of the model's weights, visual_projection.weight" in reason(checker)
    assert "lacks 1 of the model's weights, classifier.weight" in reason(labels, safety_labels="nsfw")


def test_weights_of_another_model_give_no_verdict(classifier: Path, tmp_path: Path) -> None:
    other = copied(classifier, tmp_path / "other")
    rewrite(other, **{"classifier.weight": torch.zeros(5, 32), "classifier.bias": torch.zeros(5)})

    assert "cannot check an image" in reason(other, safety_labels="nsfw")


def test_a_weight_that_is_no_number_gives_no_verdict(
    pipeline: Path, classifier: Path, tmp_path: Path
) -> None:
    checker, labels = copied(pipeline, tmp_path / "a"), copied(classifier, tmp_path / "b")
    rewrite(checker, concept_embeds=torch.full((17, 16), float("nan")))
    rewrite(labels, **{"classifier.bias": torch.full((3,), float("inf"))})

    assert "no numbers" in reason(checker)
    assert "no numbers" in reason(labels, safety_labels="nsfw")


def test_pickled_weights_are_not_opened(classifier: Path, tmp_path: Path) -> None:
    folder = copied(classifier, tmp_path / "pickled")
    torch.save(files.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")

    assert "OSError" in reason(folder, safety_labels="nsfw")


def test_code_that_lies_in_a_folder_is_not_run(classifier: Path, tmp_path: Path) -> None:
    folder, trace = copied(classifier, tmp_path / "code"), tmp_path / "it-ran"
    (folder / "code.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    configuration = json.loads((folder / "config.json").read_text())
    configuration |= {
        "model_type": "unheard-of",
        "auto_map": {
            "AutoConfig": "code.Configuration",
            "AutoModelForImageClassification": "code.ModelForImageClassification",
        },
    }
    (folder / "config.json").write_text(json.dumps(configuration))

    assert "cannot check an image" in reason(folder, safety_labels="nsfw")
    assert not trace.exists()


def test_a_classifier_flags_from_its_threshold_on(classifier: Path) -> None:
    assert verdicts(classifier, safety_labels="nsfw", safety_threshold=0.9) == [True, False]
    assert verdicts(classifier, safety_labels="nsfw", safety_threshold=0.999) == [False, False]


def test_probabilities_of_labels_that_exclude_each_other_are_added_up(classifier: Path) -> None:
    assert verdicts(classifier, safety_labels="normal", safety_threshold=0.6) == [False, False]
    assert verdicts(classifier, safety_labels="normal, drawing", safety_threshold=0.6) == [False, True]


def test_labels_that_go_together_count_one_by_one(tmp_path: Path) -> None:
    folder = checkers.classifier(tmp_path, labels=THREE, problem_type="multi_label_classification")

    assert verdicts(folder, safety_labels="normal, drawing", safety_threshold=0.6) == [False, False]
    assert verdicts(folder, safety_labels=", ".join(THREE), safety_threshold=0.6) == [True, False]


def test_a_classifiers_processor_of_an_older_transformers_is_understood(
    classifier: Path, tmp_path: Path
) -> None:
    folder = copied(classifier, tmp_path / "older")
    older = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
        "size": 32,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(older))

    assert verdicts(folder, safety_labels="nsfw") == [True, False]
