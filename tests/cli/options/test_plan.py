"""Options of a plan together with the fields of a plan file, whatever these hold."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
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
