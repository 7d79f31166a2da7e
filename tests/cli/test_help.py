"""Help says every default, in panels; one option has one name; errors name what was typed."""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import pairwise
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from cli.app import app
from cli.options.sampling import DIFFUSERS
from engine.model.registry import BUILT_IN
from schemas.numerics import Numerics
from schemas.plan import TracePlan
from tests.cli.test_commands import dqf


def commands() -> Iterator[tuple[str, Any]]:
    left: list[tuple[str, Any]] = [("", typer.main.get_command(app))]
    while left:
        name, command = left.pop()
        inner = getattr(command, "commands", {})
        left += [(f"{name} {word}".strip(), found) for word, found in inner.items()]
        if not inner:
            yield name, command


def options(name: str) -> dict[str, Any]:
    (command,) = (command for found, command in commands() if found == name)
    return {param.name: param for param in command.params}


def kind_of(param: Any) -> Any:
    """Return the type of an option's values; of each, where it is repeatable."""
    annotation = param.type_descriptor.annotation
    return next(iter(get_args(annotation)), annotation)


def choices(param: Any) -> list[str]:
    kind = kind_of(param)
    if isinstance(kind, type) and issubclass(kind, Enum):
        members: Iterable[Enum] = kind
        return [member.value for member in members]
    return []


def said(*words: str) -> str:
    """Return a help's text on a terminal of 80 columns without its frames and line breaks."""
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 80
    return done.output


@pytest.mark.parametrize("command", [("trace", "submit"), ("trace", "plan")])
def test_a_plan_has_panels_in_order(command: tuple[str, str]) -> None:
    panels = re.findall(r"─ (\w+) ─", said(*command))
    order = ["Model", "What", "Where", "Corruption", "Sampling"]
    assert [panel for panel in panels if panel in order] == order
    assert command[1] == "plan" or panels[-1] == "Running"


@pytest.mark.parametrize("command", [name for name, _ in commands()])
def test_no_word_of_a_help_is_broken_or_cut(command: str) -> None:
    shown = said(*command.split())
    assert "…" not in shown
    for param in options(command).values():
        # A choice that is broken over two lines is nowhere whole.
        for choice in choices(param):
            assert re.search(rf"(?<![\w-]){choice}(?![\w-])", shown), choice


@pytest.mark.parametrize("command", ["edit-batch", "edit attack", "query", "report"])
def test_a_paragraph_of_help_fills_its_lines(command: str) -> None:
    lines = [line.strip() for line in said(*command.split()).splitlines()]
    text = lines[lines.index("", 2) : next(n for n, line in enumerate(lines) if "─" in line)]
    for line, following in pairwise(text):
        if line and following:  # else a paragraph ends
            assert len(line) + 1 + len(following.split()[0]) > 78, line


PLAN_FIELDS = {
    "dtype": Numerics, "corruption": Numerics, "occurrence": Numerics, "noise_at": Numerics,
    "path": Numerics, "cfg_patch": Numerics, "consecutive": TracePlan,
}  # fmt: skip


def test_every_option_of_a_plan_says_its_default() -> None:
    found = options("trace submit")
    optional = {"plan", "probe", "revision"}
    plain = {"quiet", "verbose", "progress", "help"}
    for name, param in found.items():
        if name not in optional | plain:
            assert isinstance(param.show_default, str) or param.default is not None, name
    for name, model in PLAN_FIELDS.items():
        assert found[name].show_default == str(model.model_fields[name].default), name
    plan = TracePlan.model_fields
    assert int(found["draws"].show_default) == plan["noise_draws"].default
    assert found["window"].show_default == plan["windows"].default[0]
    assert found["token"].show_default == plan["tokens"].default[0].value
    assert found["patch"].show_default == plan["patches"].default[0].value
    assert found["intervention"].show_default == plan["interventions"].default[0].value
    assert found["measure"].show_default == " and ".join(plan["measures"].default)
    assert found["seed"].show_default == str(plan["seeds"].default[0])
    demo = BUILT_IN["emoji-sd"]
    assert f"{demo.steps} for emoji-sd" in found["steps"].show_default
    assert f"{demo.guidance:g} for emoji-sd" in found["guidance"].show_default
    assert f"{demo.noise:g} for emoji-sd" in found["noise"].show_default


def test_choices_are_found() -> None:
    found = options("rank") | options("components")
    assert "other-seed" in choices(found["intervention"])
    assert "cross_attn" in choices(found["kind"])
    assert "parquet" in choices(found["output_format"])
    assert choices(found["measure"]) == []


def test_one_option_has_one_name_and_one_type() -> None:
    types: dict[str, set[str]] = {}
    for name, command in commands():
        for param in command.params:
            if param.param_type_name == "option":
                assert param.name not in {"output", "seeds", "workers"}, name
                of_all = param.type_descriptor.annotation
                of_one = get_args(of_all)[0] if param.multiple else of_all
                types.setdefault(param.name, set()).add(f"{of_one}")
    for name in ("out", "seed", "actors", "steps", "kind", "guidance", "scheduler", "model"):
        assert len(types[name]) == 1, types[name]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("--dtype", "fp8"), "--dtype fp8: Input should be 'float32'"),
        (("--seed", "1", "--seed", "-3"), "--seed 1 --seed -3: "),
        (("--cfg-patch", "none"), "--cfg-patch none: "),
        (("--noise", "0"), "--noise 0.0: "),
        (("--height", "9"), "--height 9: "),
        (("--draws", "0"), "--draws 0: "),
        (("--revision", "v1"), "--revision v1 is of a model of the hub"),
        (("--model", "a/b@c", "--revision", "v1"), "has a revision already"),
        (("--variant", "fp16"), "--variant fp16 is of a model's weights: name one by --model"),
        (("--model", "a/b#ema", "--variant", "fp16"), "has a variant already"),
        (("--model", "emoji-sd", "--variant", "fp-16"), "is not a variant of weights"),
    ],
)
def test_an_error_names_the_option_that_was_typed(words: tuple[str, ...], shown: str) -> None:
    done = CliRunner().invoke(app, ["trace", "plan", "--probe", "emoji-sd", *words])
    assert done.exit_code != 0
    assert shown in f"{done.exception} {done.output}"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--torch-dtype", "fp8"), "dqf: --torch-dtype fp8: "),
        (("--num-inference-steps", "0"), "'--num-inference-steps'"),
        (("--guidance-scale=101",), "'--guidance-scale'"),
        (("--steps", "0"), "'--steps'"),
    ],
)
def test_an_error_names_an_option_as_it_was_typed(words: tuple[str, ...], named: str) -> None:
    done = dqf("trace", "plan", *words)
    assert done.returncode == 2
    assert named in done.stderr
    assert not re.search(r"--(dtype|guidance)(?!-)", done.stderr)


@pytest.mark.parametrize(("theirs", "ours"), DIFFUSERS.items())
def test_the_names_of_diffusers_are_taken(theirs: str, ours: str) -> None:
    value = {"dtype": "bf16"}.get(ours, "3")
    read = []
    for name in (theirs, ours):
        command: Any = typer.main.get_command(app)
        words = ["trace", "plan", f"--{name}", value]
        group = command.make_context("dqf", words)
        trace = command.commands["trace"].make_context("trace", words[1:], parent=group)
        plan = command.commands["trace"].commands["plan"]
        read.append(plan.make_context("plan", words[2:], parent=trace).params[ours])
    assert read[0] == read[1] == ("bfloat16" if ours == "dtype" else 3)


def test_every_model_has_a_default_that_help_can_say() -> None:
    assert all(model.steps > 0 and model.guidance >= 1 for model in BUILT_IN.values())


OPENING = [
    ("components",),
    ("edit", "sweep", "c.csv", "--out", "o", "--layer", "l", "--model"),
    ("edit-batch", "c.csv", "--out", "o", "--layer", "l", "--model"),
    ("generate", "a cat", "--out", "o.png", "--model"),
]


@pytest.mark.parametrize("words", OPENING)
def test_every_command_that_opens_a_model_takes_a_variant(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "a/b#ema", "--variant", "fp16"])
    assert done.exit_code != 0
    assert "--variant fp16: model a/b#ema has a variant already" in f"{done.exception}"


@pytest.mark.parametrize("words", OPENING)
def test_every_command_that_opens_a_model_takes_a_revision(words: tuple[str, ...]) -> None:
    for model, shown in (
        ("a/b@c", "has a revision already"),
        ("emoji-sd", "which emoji-sd is not"),
        ("/", "which / is not"),
    ):
        done = CliRunner().invoke(app, [*words, model, "--revision", "v1"])
        assert done.exit_code != 0
        assert shown in f"{done.exception} {done.output}"
