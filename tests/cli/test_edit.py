"""`dqf generate`, `dqf edit list` and `dqf edit diff` on edits of the tiny models."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.editing.delta import weights_of
from engine.model.opening import open_model
from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from tests.cli.test_commands import dqf
from tests.made_up.edits import write_made_up_edit

FIRST = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
SECOND = "text_encoder.encoder.layers.0.mlp.fc2.weight"
CAT = Concept(concept="cat", replacement="dog")
QUICK = ("--steps", "2", "--guidance", "2")


def make_edit(
    folder: Path, model: Path, *, concepts: list[Concept], sizes: dict[str, float], ridge: float = 1
) -> Path:
    """Write an edit that changes each matrix by `size` times a fixed matrix of its norm."""
    opened, changes = open_model(str(model)), {}
    for name, size in sizes.items():
        original = weights_of(opened)[name]
        rng = torch.Generator().manual_seed(1)
        drawn = torch.randn(original.shape, generator=rng, dtype=torch.float64)
        changes[name] = size * drawn * (original.double().norm() / drawn.norm())
    write_made_up_edit(folder, opened, changes, concepts, settings=EditSettings(ridge=ridge))
    return folder


@pytest.fixture(scope="module")
def edit(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edits") / "a"
    concepts = [CAT, Concept(concept="boat", weight=2)]
    return make_edit(folder, tiny_sd, concepts=concepts, sizes={FIRST: 1.0})


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.int64)


def test_before_and_after_of_the_same_latent(edit: Path, tiny_sd: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "grid.png"
    prompts = ("a red apple", "an old castle")
    seeds = ("--seed", "3", "--seed", "4")
    done = dqf("generate", "--edit", str(edit), "--out", str(out), *seeds, *QUICK, *prompts)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert f"opening {tiny_sd.resolve()}" in done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["grid.png"]
    grid = pixels(out)
    columns = [grid[30:150, left + 5 : left + 155] for left in (190, 356)]
    assert np.abs(columns[0] - columns[1]).max() > 0


def test_images_of_their_own_size_are_numbered(edit: Path, tiny_sd: Path, tmp_path: Path) -> None:
    arguments = ("--seed", "0", "--seed", "7", *QUICK, "a red apple", "an old castle")
    plain = dqf(
        "generate", "--model", str(tiny_sd), "--out", str(tmp_path / "b.png"), *arguments
    ).stdout.split()
    after = dqf(
        "generate",
        "--edit",
        str(edit),
        "--only-after",
        "--out",
        str(tmp_path / "a.png"),
        *arguments,
    ).stdout.split()
    assert [Path(path).name for path in after] == [
        "a-1-seed0.png", "a-1-seed7.png", "a-2-seed0.png", "a-2-seed7.png"
    ]  # fmt: skip
    for left, right in zip(plain, after, strict=True):
        assert pixels(Path(left)).shape == (16, 16, 3)
        assert np.abs(pixels(Path(left)) - pixels(Path(right))).max() > 0


def test_one_image_has_the_name_that_was_asked_for(tiny_sd: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    first = dqf("generate", "--model", str(tiny_sd), "--out", str(out), *QUICK, "a bird")
    assert first.stdout == f"{out}\n"
    drawn = pixels(out)
    dqf("generate", "--model", str(tiny_sd), "--out", str(out), "--seed", "1", *QUICK, "a bird")
    assert np.abs(pixels(out) - drawn).max() > 0


def test_long_prompts_are_said_to_be_cut(tiny_sd: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "x.png")
    done = dqf("generate", "--model", str(tiny_sd), "--out", out, *QUICK, "hippopotamus " * 9)
    assert "warning: text_encoder reads the first 24 tokens of" in done.stderr


def test_what_cannot_be_drawn_is_one_sentence(
    edit: Path, tiny_families: dict[str, Path], tmp_path: Path
) -> None:
    sdxl = str(tiny_families["sdxl"])
    out = ("--out", str(tmp_path / "new.png"))
    for arguments, message in (
        (("--edit", str(tmp_path), *out), "is not an edit folder"),
        (("--edit", str(edit), "--model", str(tiny_families["sd2"]), *out), "made for another"),
        (("--edit", str(edit), "--model", sdxl, *out), "was made for another model"),
        (("--model", "no-such-model", *out), "unknown model"),
        (("--only-after", *out), "--only-after needs an --edit"),
        (("--out", str(tmp_path / "new.jpg")), "is not a .png file"),
        (("--out", "/proc/new/x.png"), "cannot write in /proc"),
    ):
        done = dqf("generate", *arguments, "a cat")
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.iterdir())


def test_list_shows_concepts_and_matrices(edit: Path) -> None:
    concepts = json.loads(dqf("edit", "list", str(edit), "--format", "json").stdout)
    assert concepts == [
        {
            "concept": "cat",
            "replacement": "dog",
            "kind": "object",
            "mode": "update",
            "weight": 1.0,
            "forms": "cats, the cat, Cat",
        },
        {
            "concept": "boat",
            "replacement": "object",
            "kind": "object",
            "mode": "remove",
            "weight": 2.0,
            "forms": "boats, the boat, Boat",
        },
    ]
    done = dqf("edit", "list", str(edit), "--matrices", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert (row["matrix"], row["shape"], row["rank"]) == (FIRST, "32 x 32", "32")
    assert float(row["relative_change"]) == pytest.approx(1, rel=1e-5)
    assert "concepts: 2, matrices changed: 1" in done.stderr
    assert "cat" in dqf("edit", "list", str(edit)).stdout


def test_diff_shows_concepts_settings_and_distances(
    edit: Path, tiny_sd: Path, tmp_path: Path
) -> None:
    concepts = [Concept(concept="Cat", replacement="cow"), Concept(concept="tree")]
    other = make_edit(
        tmp_path / "b", tiny_sd, concepts=concepts, sizes={FIRST: 1.5, SECOND: 0.25}, ridge=2
    )
    rows = json.loads(dqf("edit", "diff", str(edit), str(other), "--format", "json").stdout)
    found = {(row["what"], row["name"]): (row["first"], row["second"]) for row in rows}
    assert found["concept", "cat"] == ("replacement dog", "replacement cow")
    assert found["concept", "boat"][1] is None
    assert found["concept", "tree"] == (
        None,
        "replacement object, kind object, mode remove, weight 1",
    )
    assert found["setting", "ridge"] == ("1", "2")
    assert ("setting", "roles.eos") not in found
    distances = {row["name"]: row["distance"] for row in rows if row["what"] == "matrix"}
    assert distances == {
        FIRST: pytest.approx(0.5, rel=1e-4), SECOND: pytest.approx(0.25, rel=1e-4)
    }  # fmt: skip
    same = json.loads(dqf("edit", "diff", str(edit), str(edit), "--format", "json").stdout)
    assert [(row["what"], row["distance"]) for row in same] == [("matrix", 0.0)]


def test_edits_of_unequal_models_have_no_distance(
    edit: Path, tiny_families: dict[str, Path], tmp_path: Path
) -> None:
    other = make_edit(tmp_path / "b", tiny_families["sd2"], concepts=[CAT], sizes={FIRST: 1})
    rows = json.loads(dqf("edit", "diff", str(edit), str(other), "--format", "json").stdout)
    assert [(row["what"], row["distance"]) for row in rows if row["what"] != "concept"] == [
        ("model", None), ("matrix", None)
    ]  # fmt: skip
    assert "is not an edit folder" in dqf("edit", "diff", str(edit), str(tmp_path)).stderr


def test_a_sweep_of_identity_alone_takes_no_weights(tmp_path: Path) -> None:
    out = tmp_path / "s"
    words = ("edit", "sweep", "c.csv", "--out", str(out), "--layer", "l", "--anchor", "identity")
    done = dqf(*words, "--preserve", "1")
    assert done.returncode == 2
    assert "--preserve weighs the anchors kept and general: leave it out" in done.stderr
    assert not out.exists()
