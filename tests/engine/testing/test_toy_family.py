"""A family from another package is found by its entry point and passes the public tests."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.model.families.known import FAMILIES, installed_families
from engine.model.model import Family
from engine.testing.families import FamilyTests
from tests.models.tiny import build_pipeline

PACKAGE = Path(__file__).parents[2] / "toy_package"
METADATA = "Metadata-Version: 2.1\nName: toy-family\nVersion: 1.0\n"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, place: str) -> None:
    """Make the package importable, and described as pip describes it."""
    described = folder / "toy_family-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(METADATA)
    (described / "entry_points.txt").write_text(f"[dqf.families]\nupside-down = {place}\n")
    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.syspath_prepend(folder)


def test_an_entry_point_that_is_no_family_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, place="toy_family:UpsideDownPipeline")
    with pytest.raises(TypeError, match=r"upside-down of .* must be a subclass of Family"):
        list(installed_families())


class TestUpsideDown(FamilyTests):
    """What a package's own tests are."""

    @pytest.fixture(scope="class", autouse=True)
    def installed(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """Install the package, as a process finds it that starts afterward."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            install(
                tmp_path_factory.mktemp("installed"), monkeypatch, place="toy_family:UpsideDown"
            )
            (found,) = installed_families()
            monkeypatch.setitem(FAMILIES, found.pipeline, found)
            yield

    @property
    def package(self) -> Any:
        """The package's module."""
        return importlib.import_module("toy_family")

    @property
    def family(self) -> Family:  # pyright: ignore
        """The family that was found."""
        return FAMILIES["UpsideDownPipeline"]

    def build(self) -> Any:
        """Return the tiny Stable Diffusion as the package's pipeline."""
        parts = build_pipeline().components
        return self.package.UpsideDownPipeline(**parts, requires_safety_checker=False)

    def open_pipeline(self, folder: Path) -> Any:
        """Return the pipeline of a folder; diffusers does not know its class."""
        kind = self.package.UpsideDownPipeline
        pipeline = kind.from_pretrained(folder, low_cpu_mem_usage=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
