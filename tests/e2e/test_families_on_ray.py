"""Families besides Stable Diffusion 1 through the real command line and on real Ray."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.query.select import run_query
from jobs.runs.trace_run import open_run
from schemas.component import TEXT_ENTRIES
from tests.cli.test_commands import dqf
from tests.models.language_models import build_flux2, build_klein, build_qwen_image, build_z_image
from tests.models.transformers import build_flux, build_pixart, build_sana

CAPTIONS = "caption,subject,attribute,target\na red apple on a wooden table,apple,object,\n"
CONCEPTS = "concept,replacement,kind,prompts\napple,castle,object,a photo of {}\n"
WORDS = {"objects": ["apple", "castle", "ship"], "styles": [], "colors": ["natural"]}
SCORES = "SELECT component, path, clean, corrupted, patched FROM scores"


def traced(folder: Path, model: Path, scorer: Path, *options: str) -> list[dict]:
    """Return the rows that `dqf trace submit` scores."""
    captions = folder / "captions.csv"
    captions.write_text(CAPTIONS)
    done = dqf(
        "trace", "submit", "--model", str(model), "--scorer", str(scorer),
        "--captions", str(captions), "--steps", "2", "--guidance", "4", "--height", "16",
        "--width", "16", "--actors", "1", "--rows", "24", "--measure", "clean-latent",
        "--run", str(folder / "run"), *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return run_query(open_run(folder / "run"), SCORES).to_pylist()


@pytest.mark.slow
def test_sd3_is_traced_by_path(tmp_path: Path, tiny_sd3: Path, tiny_scorer: Path) -> None:
    kinds = ("pooled_projection", "text_projection", "joint_attn_text", "stream_image")
    options = [word for kind in kinds for word in ("--kind", kind)]
    rows = traced(
        tmp_path, tiny_sd3, tiny_scorer, "--path", "pooled", "--part", "denoiser", *options
    )
    values = {row["component"].removeprefix("transformer."): row for row in rows}
    assert {row["path"] for row in rows} == {"pooled"}
    assert "transformer_blocks.0.attn.text" in values
    entry, other = values["time_text_embed.text_embedder"], values["context_embedder"]
    assert entry["corrupted"] < -1e-3
    assert entry["patched"] == pytest.approx(0, abs=1e-4)
    assert other["patched"] == pytest.approx(other["corrupted"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["pixart", "flux", "sdxl", "if"])
def test_a_family_lists_draws_and_traces(
    tmp_path: Path, tiny_families: dict[str, Path], tiny_scorer: Path, family: str
) -> None:
    model = tmp_path / family
    if family in tiny_families:
        model = tiny_families[family]
    elif family == "pixart":
        build_pixart(sigma=True).save_pretrained(model)
    else:
        build_flux(guidance_embeds=True).save_pretrained(model)
    listed = json.loads(dqf("components", str(model), "--format", "json").stdout)
    live = {row["component"] for row in listed if not row["is_dead"]}
    rows = traced(tmp_path, model, tiny_scorer)
    # What all text entries do together bounds the denoiser's effects, and is traced with them.
    assert {row["component"] for row in rows} == {*live, TEXT_ENTRIES}
    image = tmp_path / "image.png"
    drawn = dqf(
        "generate", "a red apple", "--model", str(model), "--steps", "2", "--out", str(image)
    )
    assert drawn.returncode == 0, drawn.stderr
    assert image.is_file()


def saved(pipeline: Any, folder: Path) -> Path:
    """Return the folder of a pipeline, with words that its small tokenizer knows."""
    pipeline.save_pretrained(folder)
    (folder / "vocabulary.json").write_text(json.dumps(WORDS))
    return folder


def traced_and_edited(folder: Path, model: Path, scorer: Path, entry: str) -> Path:
    """Return the folder of an edit of a model's text projection, after a trace of it; what is
    written loads by diffusers as the edit."""
    rows = traced(
        folder, model, scorer, "--part", "denoiser", "--kind", "text_projection",
        "--kind", "stream_image",
    )  # fmt: skip
    values = {row["component"].removeprefix("transformer."): row for row in rows}
    assert values[entry]["corrupted"] < -1e-3
    assert values[entry]["patched"] == pytest.approx(0, abs=1e-4)
    assert any("stream_image" in component for component in values)
    (folder / "concepts.csv").write_text(CONCEPTS)
    done = dqf(
        "edit-batch", str(folder / "concepts.csv"), "--model", str(model), "--scorer", str(scorer),
        "--images", "0", "--out", str(folder / "edit"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    checked = dqf("edit", "check", str(folder / "edit"), "--format", "json")
    assert checked.returncode == 0, checked.stderr
    (matrix,) = json.loads(checked.stdout)
    assert matrix["matrix"].startswith(f"transformer.{entry}.")
    assert matrix["state"] == "applied"
    assert checked.stderr.rstrip().endswith("PASS")
    return folder / "edit"


@pytest.mark.slow
def test_z_image_is_traced_and_edited(tmp_path: Path, tiny_scorer: Path) -> None:
    model = saved(build_z_image(), tmp_path / "model")
    traced_and_edited(tmp_path, model, tiny_scorer, "cap_embedder.1")


@pytest.mark.slow
def test_qwen_image_is_traced_and_edited(tmp_path: Path, tiny_scorer: Path) -> None:
    model = saved(build_qwen_image(), tmp_path / "model")
    traced_and_edited(tmp_path, model, tiny_scorer, "txt_in")


@pytest.mark.slow
def test_flux2_dev_is_traced_and_edited(tmp_path: Path, tiny_scorer: Path) -> None:
    model = saved(build_flux2(), tmp_path / "model")
    traced_and_edited(tmp_path, model, tiny_scorer, "context_embedder")


@pytest.mark.slow
def test_flux2_klein_is_traced_and_edited(tmp_path: Path, tiny_scorer: Path) -> None:
    model = saved(build_klein(is_distilled=False), tmp_path / "model")
    traced_and_edited(tmp_path, model, tiny_scorer, "context_embedder")


@pytest.mark.slow
def test_sana_is_traced_edited_and_evaluated(tmp_path: Path, tiny_scorer: Path) -> None:
    model = saved(build_sana(sprint=False), tmp_path / "model")
    edit = traced_and_edited(tmp_path, model, tiny_scorer, "caption_projection")
    done = dqf(
        "edit", "evaluate", str(edit), "--images", "1", "--steps", "2", "--scorer",
        str(tiny_scorer), "--prompt-set", "small", "--actors", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    groups = {row["group"] for row in json.loads(dqf(
        "edit", "results", str(edit), "--format", "json"
    ).stdout)}  # fmt: skip
    assert {"concept", "kept", "general"} <= groups
