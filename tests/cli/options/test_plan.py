"""Options of a plan together with the fields of a plan file, whatever these hold."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.options.plan import _given
from jobs.input.probes import probe_set, with_version
from schemas.errors import PlanError
from schemas.plan import TracePlan

CAPTION = {"caption": "a red cat", "subject": "cat", "attribute": "object"}
VALUES = (True, 3, -0.5, "x", ["x"], {"x": 1}, None)


@pytest.mark.parametrize("name", sorted(TracePlan.model_fields))
def test_a_field_of_another_type_is_a_plans_error_whatever_options_say(
    name: str, tmp_path: Path
) -> None:
    for value in VALUES:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps({"captions": [CAPTION], name: value}))
        # The height ends a plan that is right otherwise, before a model is looked at.
        options = ["--part", "text-encoder", "--height", "30"]
        result = CliRunner().invoke(app, ["trace", "plan", "--plan", str(path), *options])
        assert isinstance(result.exception, PlanError), f"{value!r}: {result.exception!r}"


def test_a_plan_records_the_version_of_its_probe_set(tmp_path: Path) -> None:
    version = with_version("sd")
    path = tmp_path / "plan.yaml"
    path.write_text("probe: sd\nmodel: emoji-sd\n")
    for options in ({"probe": "sd"}, {"probe": version}, {"plan": path}):
        plan = _given(options).plan()
        assert (plan.probe, plan.captions) == (version, probe_set("sd"))
    assert _given({}).plan().probe == with_version("emoji-sd")
    captions = tmp_path / "captions.csv"
    captions.write_text("caption,subject,attribute\na red cat,cat,object\n")
    assert _given({"plan": path, "captions": captions}).plan().probe is None


def test_a_noise_that_another_would_replace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("numerics: {noise_absolute: 0.2}\n")
    for options in ({"noise_absolute": 0.2}, {"plan": path}):
        with pytest.raises(PlanError, match=r"--noise or --noise-absolute, .* not both"):
            _given({"noise": [5.0], **options})
        assert _given(options).plan().numerics.noise_absolute == 0.2
