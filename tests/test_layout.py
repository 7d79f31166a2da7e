"""The layout contracts: package origins, a fast command line."""

import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import grimp
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
    families = ROOT / "engine" / "model" / "families"
    shown = ("cross_attention.py", "joint_attention.py", "z_image.py")
    source = "".join((families / name).read_text() for name in shown)
    family, _, _ = page.partition("## A scorer")
    blocks = [part.split("```")[0] for part in family.split("```python\n")[1:]]
    *blocks, test = blocks
    assert "(FamilyTests)" in test
    assert len(blocks) == 5
    for block in blocks:
        assert block in source, block


def test_no_module_imports_itself_through_others() -> None:
    assert import_circle("schemas", "engine", "jobs", "cli", "dqf", "bench", "tests") == []


def test_of_all_tests_only_those_of_the_benchmarks_import_them() -> None:
    graph = grimp.build_graph("tests", "bench", cache_dir=None)
    importers = {
        importer
        for module in graph.find_descendants("bench") | {"bench"}
        for importer in graph.find_modules_that_directly_import(module)
        if importer.startswith("tests.")
    }
    assert importers
    assert {importer for importer in importers if not importer.startswith("tests.bench.")} == set()


def test_a_circle_through_an_import_in_a_function_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "round_trip"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("from round_trip import b\n")
    (package / "b.py").write_text("from typing import TYPE_CHECKING\nimport round_trip.c\n")
    (package / "c.py").write_text("def late():\n    from round_trip.a import b\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(import_circle("round_trip")) == {f"round_trip.{name}" for name in "abc"}


def import_circle(*packages: str) -> list[str]:
    """Return the modules of one circle of imports, or of none; imports in functions count too."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    imported = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    try:
        graphlib.TopologicalSorter(imported).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []
