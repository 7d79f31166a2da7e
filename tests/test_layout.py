"""The layout contracts: package origins, a fast command line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("package", ["cli", "jobs", "engine", "schemas"])
def test_package_comes_from_this_repo(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)


def test_command_line_imports_no_heavy_package() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'open_clip', 'ray', 'duckdb'}"
    code = f"import sys, cli.app; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("package", ["cli", "jobs", "engine", "schemas"])
def test_package_init_is_empty(package: str) -> None:
    for init in (ROOT / package).rglob("__init__.py"):
        assert init.read_text() == "", f"{init} is not empty"


def test_the_code_of_adding_a_model_is_the_engines() -> None:
    page = (ROOT / "docs" / "adding-a-model.md").read_text()
    source = (ROOT / "engine" / "model" / "families" / "sdxl.py").read_text()
    family, _, _ = page.partition("## A scorer")
    blocks = [part.split("```")[0] for part in family.split("```python\n")[1:]]
    assert len(blocks) == 3
    for block in blocks:
        assert block in source, block
