"""Plans: every input that cannot be run is refused with a sentence that says where it is wrong."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.plans import check_plan, make_plan, pick, read_captions, read_plan
from jobs.probes import probe_names, probe_set
from schemas.errors import DqfError, ModelUnavailable, PlanError, UnknownComponent
from schemas.plan import Caption

CAT = {"caption": "a cat", "subject": "cat", "attribute": "object"}


def test_the_three_formats_read_the_same(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("caption,subject,attribute,target\na cat,cat,object,\n")
    (tmp_path / "c.jsonl").write_text(
        '{"caption": "a cat", "subject": "cat", "attribute": "object"}\n\n'
    )
    pq.write_table(pa.Table.from_pylist([CAT]), tmp_path / "c.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert read_captions(tmp_path / f"c.{suffix}") == (Caption(**CAT),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "", "are read from .csv, .jsonl or .parquet"),
        ("c.csv", "", "holds no caption"),
        ("c.csv", "caption,subject,attribute\n", "holds no caption"),
        ("c.csv", "caption,subject\na cat,cat\n", "no column 'attribute'"),
        ("c.csv", "caption,subject,attribute\na cat,dog,object\n", "line 2.*'dog' does not occur"),
        ("c.csv", "caption,subject,attribute\na cat,cat,\n", "line 2.*attribute"),
        ("c.csv", "caption,subject,attribute\na cat,cat\n", "line 2.*attribute"),
        ("c.jsonl", "{nope\n", "line 1: not JSON"),
        ("c.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("c.parquet", "nope", "not a Parquet file"),
        (
            "c.csv",
            "caption,subject,attribute,targte\na cat,cat,object,\n",
            "unknown column.*targte",
        ),
    ],
)
def test_bad_caption_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PlanError, match=message):
        read_captions(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such file"):
        read_captions(tmp_path / "c.csv")


def test_plan_file_names_its_captions_beside_it(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("caption,subject,attribute\na cat,cat,object\n")
    (tmp_path / "plan.yaml").write_text("captions: c.csv\nnumerics: {steps: 3}\nseeds: [4]\n")
    plan = make_plan(read_plan(tmp_path / "plan.yaml"))
    assert plan.captions == (Caption(**CAT),)
    assert (plan.numerics.steps, plan.seeds, plan.scorer) == (3, (4,), "builtin:emoji-sd")


@pytest.mark.parametrize("text", ["- a\n", "{", "a: [", ""])
def test_bad_plan_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError):
        read_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sedes": [1]}, "sedes"),
        ({"numerics": {"steps": 0}}, "steps"),
        ({"numerics": 3}, "mapping"),
        ({"seeds": [-1]}, "seeds"),
        ({"parts": ["vae"]}, "parts"),
    ],
)
def test_bad_fields_are_named(fields: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan({"captions": [CAT], **fields})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"components": ["unet.mid_block.resnet.0"]}, UnknownComponent, "unet.mid_block.resnets.0"),
        ({"captions": [{**CAT, "caption": "cat " * 60}]}, PlanError, "limit"),
        ({"parts": ["unet"], "components": ["text_encoder.layers.0.mlp"]}, PlanError, "unet"),
        ({"model": "no-such-model"}, ModelUnavailable, "emoji-sd"),
    ],
)
def test_a_plan_is_checked_against_its_model(
    tiny_sd: Path, change: dict, error: type[DqfError], message: str
) -> None:
    plan = make_plan({"model": str(tiny_sd), "captions": [CAT], **change})
    with pytest.raises(error, match=message):
        check_plan(plan)


def test_probe_sets_are_balanced_and_large() -> None:
    for name in probe_names():
        captions = probe_set(name)
        assert len({caption.id for caption in captions}) == len(captions)
        counts = Counter(caption.attribute for caption in captions)
        assert {"object", "style", "color", "viewpoint"} <= set(counts)
        assert min(counts.values()) >= 50
        assert set(Counter(c.attribute for c in pick(captions, each=3)).values()) == {3}


def test_an_unknown_probe_set_names_the_others() -> None:
    with pytest.raises(PlanError, match="emoji-sd, sd"):
        probe_set("sdd")
