"""The notebook is run from its first cell to its last."""

import ast
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.docs.shown import ROOT

NOTEBOOK = ROOT / "docs" / "examples" / "trace-one-caption.ipynb"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last line, which a notebook shows."""
    *before, last = ast.parse(source).body
    shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module(before if shown else [*before, last], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if shown else None


def test_every_cell_runs_and_shows_what_the_text_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, Any] = {}
    sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    shown = [value for source in sources if (value := run_cell(source, names)) is not None]
    trace, words, steps, rows, strongest = shown
    assert trace._repr_html_().count("<svg") == 3
    for word in ("photo", "dog*", "layer 0 MLP"):
        assert word in words._repr_html_()
    assert (tmp_path / "dog-words.svg").read_text().startswith("<svg")
    assert "cross-attention" in steps._repr_html_()
    assert isinstance(rows, pa.Table)
    assert (rows.num_rows, strongest.num_rows) == (5, 3)
