"""What is kept of a spec: everything that counts, and nothing that the release before would stumble over."""

import json

from app.domain.spec import JobSpec
from tests.rows import make_spec

BEFORE_0002 = {
    *("spec_version", "operation", "model", "prompt", "negative_prompt", "width", "height"),
    *("num_inference_steps", "guidance_scale", "strength", "seed", "num_images", "output_format"),
}


def test_a_plain_spec_has_only_the_members_that_older_workers_know() -> None:
    assert set(json.loads(make_spec().as_stored())) == BEFORE_0002


def test_what_is_kept_is_the_same_spec_again() -> None:
    for spec in (
        make_spec(),
        make_spec(test=True, safety_checker=True, safety_checker_type="blur", quality=80),
    ):
        assert JobSpec.model_validate_json(spec.as_stored()) == spec
