"""Sets on the command line: bad input is one sentence and exit code 2, before Ray or a model."""

import re
import sys
from pathlib import Path

import pytest

from schemas.component_set import Curve
from tests.cli.test_commands import dqf
from tests.made_up.set_run import make_set_run, set_of
from tests.made_up.small_run import make_run

RESNET, TEXT = "unet.mid_block.resnets.0", "text_encoder.layers.0.self_attn"
EVERY = ",".join(
    f"text_encoder.layers.{n}.{kind}" for n in range(4) for kind in ("self_attn", "mlp")
)


def refused(*words: str) -> str:
    """Return the sentence of a command that is refused."""
    before = {name for name in ("ray", "duckdb") if name in sys.modules}
    done = dqf(*words)
    assert done.returncode == 2, done.stderr
    assert before or "ray" not in sys.modules
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("dqf: ")]
    assert len(said) == 1, done.stderr
    return said[0]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("both", r"a set is NAME=COMPONENT\[@WHERE\],COMPONENT\[@WHERE\],..., not 'both'"),
        ("both=", "a set is NAME="),
        (f"a b={RESNET}", "--set a b=.*: a set's name is of letters, digits"),
        (f"both={RESNET},{RESNET}", "twice: leave one out"),
        (f"both={RESNET}@0:3,{RESNET}@2:5", "at 0:3 and at 2:5, which overlap"),
        ("both=unet.mid_block.resnet.0", "no component 'unet.mid_block.resnet.0'"),
        (f"both={RESNET}@eos", "of the denoiser: after @ it takes steps"),
        (f"both={TEXT}@1:2", "of a text encoder: after @ it takes last_subject"),
        (f"both={EVERY}", "every component of the text-encoder"),
    ],
)
def test_a_set_that_is_wrong(typed: str, said: str) -> None:
    assert re.search(said, refused("trace", "plan", "--no-calibrate", "--set", typed))


def test_a_set_of_both_parts_has_a_cost() -> None:
    typed = f"both={TEXT}@subject,{RESNET}@0:3"
    done = dqf("trace", "plan", "--no-calibrate", "--set", typed, "--format", "csv")
    assert done.returncode == 0, done.stderr
    units, runs = done.stdout.splitlines()[1].split(",")[:2]
    assert units == runs != "0"


def test_trace_sets_refuses_what_it_cannot_rank(tmp_path: Path) -> None:
    few = make_run(tmp_path / "few")
    assert "half" in refused("trace", "sets", few.location)
    missing = refused("trace", "sets", few.location, "--attribute", "colour")
    assert "no attribute 'colour': it has object, style" in missing
    assert "no run at" in refused("trace", "sets", str(tmp_path / "none"))
    sets = make_set_run(tmp_path / "sets", (set_of("top-1", 1, curve=Curve.TOP),), lambda *_: 0.5)
    assert "ranks no components" in refused("trace", "sets", sets.location)


def test_the_curves_are_plotted(tmp_path: Path) -> None:
    sets = tuple(set_of(f"top-{n}", n, curve=Curve.TOP) for n in (1, 2, 3))
    run = make_set_run(tmp_path / "sets", sets, lambda each, *_: len(each.members) / 3)
    out = tmp_path / "sets.svg"
    done = dqf("plot", run.location, "--figure", "sets", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "restored together" in done.stderr
    assert "components together" in out.read_text()
    assert "it takes" in refused(
        "plot", run.location, "--figure", "sets", "--top", "3", "--out", str(out)
    )
    report = tmp_path / "report.html"
    done = dqf("report", run.location, "--out", str(report))
    assert done.returncode == 0, done.stderr
    assert 'id="sets"' in report.read_text()


def test_rank_of_a_run_of_sets_has_no_states(tmp_path: Path) -> None:
    sets = (set_of("top-1", 1, curve=Curve.TOP),)
    run = make_set_run(tmp_path / "sets", sets, lambda *_: 0.5)
    done = dqf("rank", run.location)
    assert done.returncode == 0, done.stderr
