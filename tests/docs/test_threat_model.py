"""The page on threats names a test for each line that it says holds, and all of them exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_line_that_holds_names_a_test_that_exists() -> None:
    _, _, table = PAGE.partition("## What holds")
    rows = [line for line in table.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    lines = [row for row in rows if row != "| line | test |"]
    assert lines
    for line in lines:
        found = TEST.findall(line)
        assert found, f"no test holds: {line}"
        for file, name in found:
            tree = ast.parse((ROOT / file).read_text())
            functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
            assert name in functions, f"{file} has no {name}"


def test_the_page_is_linked() -> None:
    assert "(docs/threat-model.md)" in (ROOT / "SECURITY.md").read_text()
    assert "threat-model.md" in (ROOT / "mkdocs.yml").read_text()
