"""`import dqf`, `python -m dqf`, and files of the user's that are named like dqf's packages."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import dqf
from dqf.packages import INNER_PACKAGES, ROOT

FOREIGN = "raise RuntimeError('a foreign file was imported')\n"


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, as a user does there."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


def hide(folder: Path, names: Sequence[str], *, as_package: bool) -> None:
    """Write files that are named like dqf's packages."""
    for name in names:
        path = folder / name / "__init__.py" if as_package else folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FOREIGN)


def test_every_public_name_is_what_its_module_holds() -> None:
    for name in dqf.__all__:
        assert getattr(dqf, name).__module__.startswith(INNER_PACKAGES), name
    assert sorted(dqf.__all__) == sorted(dqf.PLACES)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dqf.no_such_name


def test_type_checkers_and_python_find_the_same_names() -> None:
    tree = ast.parse((ROOT / "dqf" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: node.module for node in imports for alias in node.names}
    assert typed == dqf.PLACES
    assert (ROOT / "dqf" / "py.typed").is_file()


def test_importing_dqf_changes_no_path_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; before = list(sys.path); import dqf; assert sys.path == before;"
        "heavy = {'torch', 'ray', 'pyarrow', 'schemas'}; print(heavy & sys.modules.keys())"
    )
    result = python("-c", code, cwd=tmp_path)
    assert result.stdout == "set()\n", result.stderr


@pytest.mark.parametrize("as_package", [False, True])
@pytest.mark.parametrize("name", INNER_PACKAGES)
def test_a_foreign_package_is_named_with_the_one_it_hides(
    name: str, as_package: bool, tmp_path: Path
) -> None:
    hide(tmp_path, [name], as_package=as_package)
    result = python("-c", "import dqf\nfrom dqf import Caption", cwd=tmp_path)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("ImportError: dqf's package"), result.stderr
    foreign = tmp_path / name / "__init__.py" if as_package else tmp_path / f"{name}.py"
    assert str(foreign) in last
    assert str(ROOT / name / "__init__.py") in last
    assert "a foreign file was imported" not in result.stderr


@pytest.mark.parametrize("as_package", [False, True])
def test_the_command_finds_its_own_packages(as_package: bool, tmp_path: Path) -> None:
    hide(tmp_path, INNER_PACKAGES, as_package=as_package)
    result = python("-m", "dqf", "models", "--format", "json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "emoji-sd" in result.stdout


@pytest.mark.slow
def test_workers_find_their_own_packages(tmp_path: Path, tiny_sd: Path, tiny_scorer: Path) -> None:
    hide(tmp_path, INNER_PACKAGES, as_package=False)
    (tmp_path / "captions.csv").write_text("caption,subject,attribute\na red cat,cat,object\n")
    options = ["--captions", "captions.csv", "--model", str(tiny_sd), "--scorer"]
    options += [str(tiny_scorer), "--steps", "1", "--part", "text-encoder", "--actors", "1"]
    result = python("-m", "dqf", "trace", "submit", *options, "--run", "mine", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 of 1 units done, 0 failed" in result.stdout + result.stderr
