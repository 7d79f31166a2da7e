"""A command as the arguments of a job: what is parsed there is what was parsed here."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from cli.job import arguments


class Fruit(StrEnum):
    APPLE = "apple"
    PEAR = "pear"


seen: list[tuple[list[str], dict[str, Any]]] = []
app = typer.Typer()
basket = typer.Typer()
app.add_typer(basket, name="basket")


@basket.command("fill")
def fill(
    context: typer.Context,
    source: Path,
    names: Annotated[list[str], typer.Argument()],
    weight: Annotated[list[float] | None, typer.Option()] = None,
    fruit: Fruit = Fruit.APPLE,
    full: Annotated[bool, typer.Option("--full")] = False,
    timed: Annotated[bool, typer.Option()] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o")] = None,
    rate: float = 3600.0,
    address: Annotated[str | None, typer.Option(envvar="DQF_TEST_ADDRESS")] = None,
) -> None:
    given = {k: v for k, v in context.params.items() if k != "address"}
    seen.append((arguments(context), given))
    seen.append((arguments(context, {"source": "shipped.csv", "out": None, "names": None}), {}))


def called(*words: str) -> tuple[list[str], dict[str, Any], list[str]]:
    seen.clear()
    result = CliRunner().invoke(app, ["basket", "fill", *words], env={"DQF_TEST_ADDRESS": "h:1"})
    assert result.exit_code == 0, result.output
    (whole, values), (replaced, _) = seen
    return whole, values, replaced


@pytest.mark.parametrize(
    "words",
    [
        ("/a/b.csv", "x"),
        ("/a/b c.csv", "it's", "y", "--weight", "1e-7", "--weight", "2.5", "--fruit", "pear"),
        ("/a", "x", "--full", "--no-timed", "-o", "/o", "--rate", "3600", "--address", "q"),
    ],
)
def test_a_job_parses_what_was_parsed_here(words: tuple[str, ...]) -> None:
    whole, values, _ = called(*words)
    assert whole[:2] == ["basket", "fill"]
    assert "--address" not in whole
    again, same, _ = called(*whole[2:])
    assert same == values
    assert again == whole


def test_paths_become_absolute_and_what_is_replaced_is_left_as_it_is() -> None:
    whole, _, replaced = called("c.csv", "x", "-o", "out")
    assert whole == ["basket", "fill", str(Path.cwd() / "c.csv"), "x", "--out",
                     str(Path.cwd() / "out")]  # fmt: skip
    assert replaced == ["basket", "fill", "shipped.csv"]
