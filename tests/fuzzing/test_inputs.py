"""Plans, captions and concepts with one thing changed: planned and edited, or refused."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given

from tests.covering import slow
from tests.fuzzing.changes import CHANGES, Change, apply, fresh
from tests.fuzzing.running import check_ends_in_order
from tests.fuzzing.settings import LONG, QUICK

LAYER = "text_encoder.layers.0.self_attn"
CAPTIONS = [
    {"caption": "a photo of a red cat", "subject": "cat", "attribute": "object",
     "target": "a cat", "counterfactual": "dog"},
    {"caption": "a castle and a castle", "subject": "castle", "attribute": "object",
     "target": "a castle", "counterfactual": "ship"},
]  # fmt: skip
CONCEPTS = [
    {
        "concept": "cat",
        "replacement": "dog",
        "kind": "object",
        "mode": "update",
        "weight": 1.0,
        "prompts": "a {}",
    },
    {
        "concept": "van gogh",
        "replacement": "",
        "kind": "style",
        "mode": "remove",
        "weight": 0.5,
        "prompts": "a {}",
    },
]
ROWS: Mapping[str, Sequence[Mapping[str, object]]] = {"captions": CAPTIONS, "concepts": CONCEPTS}


OTHER_FORMATS = (
    "captions.csv", "captions.jsonl", "captions.yaml", "concepts.csv", "concepts.jsonl",
    "concepts.parquet", "plan.yaml",
)  # fmt: skip


def write_rows(folder: Path) -> None:
    """Write captions and concepts in every format that is read."""
    for name, rows in ROWS.items():
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (folder / f"{name}.csv").write_text("\n".join(lines))
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(rows))
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def whole(tiny_sd: Path, tiny_scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of plans, captions and concepts."""
    work = tmp_path_factory.mktemp("whole")
    write_rows(work)
    plan = {
        "model": str(tiny_sd), "scorer": str(tiny_scorer), "captions": CAPTIONS, "seeds": [0, 1],
        "parts": ["denoiser", "text-encoder"], "kinds": ["mlp", "cross_attn"],
        "windows": ["all", "sliding:1"], "tokens": ["last_subject", "words"], "noise_draws": 2,
        "interventions": ["restore", "other-caption"], "references": ["a photo of a tree"],
        "measures": ["target"], "chunk_units": 4,
        "numerics": {"steps": 2, "guidance": 2.0, "negative_prompt": "blurry"},
    }  # fmt: skip
    (work / "plan.json").write_text(json.dumps(plan))
    (work / "plan.yaml").write_text(yaml.safe_dump(plan))
    return work


def command_of(path: Path, model: Path, scorer: Path) -> tuple[str, ...]:
    """Return the command that reads a file."""
    name = path.name
    if name.startswith("plan"):
        return ("trace", "plan", "--plan", name)
    if name.startswith("captions"):
        opened = ("--model", str(model), "--scorer", str(scorer), "--steps", "2")
        return ("trace", "plan", "--captions", name, *opened)
    made = ("--out", "new", "--images", "0", "--preserve", "0", "--general", "0")
    return ("edit-batch", name, "--model", str(model), "--layer", LAYER, *made)


def check(whole: Path, folder: Path, change: Change, model: Path, scorer: Path) -> None:
    """Apply a change to a copy of the inputs and check how the command that reads it ends."""
    path = apply(change, fresh(whole, folder), outside=folder / "outside")
    check_ends_in_order(command_of(path, model, scorer), folder=folder)


@pytest.mark.parametrize(
    "name",
    [
        "captions.parquet",
        "concepts.yaml",
        "plan.json",
        *map(slow, OTHER_FORMATS),
    ],
)
def test_whole_inputs_are_taken(
    name: str, whole: Path, tmp_path: Path, tiny_sd: Path, tiny_scorer: Path
) -> None:
    fresh(whole, tmp_path)
    command = command_of(Path(name), tiny_sd, tiny_scorer)
    said = check_ends_in_order(command, folder=tmp_path)
    assert not said.startswith(("dqf:", "Usage")), said


@given(change=CHANGES)
@QUICK
def test_a_changed_input_is_taken_or_refused(
    change: Change, whole: Path, tmp_path: Path, tiny_sd: Path, tiny_scorer: Path, until: float
) -> None:
    if time.monotonic() < until:
        check(whole, tmp_path, change, tiny_sd, tiny_scorer)


@pytest.mark.slow
@given(change=CHANGES)
@LONG
def test_many_changed_inputs_are_taken_or_refused(
    change: Change, whole: Path, tmp_path: Path, tiny_sd: Path, tiny_scorer: Path, until_late: float
) -> None:
    if time.monotonic() < until_late:
        check(whole, tmp_path, change, tiny_sd, tiny_scorer)
