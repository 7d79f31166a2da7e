"""Locating: the top-ranked text-encoder component of a run, by attribute where it can be."""

from pathlib import Path
from typing import Any, Literal

import pytest

from jobs.editing.locate import locate, locate_set
from jobs.editing.request import EditRequest, plan_edit
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import create_run
from schemas.caption import Caption
from schemas.component import Component, Kind, Part
from schemas.concept import Concept, ConceptKind
from schemas.errors import ConceptError, StoreError
from schemas.plan import TracePlan
from tests.made_up.runs import MANIFEST, commit_all, score_row
from tests.made_up.set_run import make_set_run, set_of

NAMES = ("text_encoder.layers.0.self_attn", "text_encoder.layers.0.mlp", "unet.mid_block.resnets.0")
EFFECT = {
    ("object", NAMES[0]): 0.3, ("object", NAMES[1]): 0.1,
    ("style", NAMES[0]): -0.2, ("style", NAMES[1]): 0.2,
}  # fmt: skip
CAPTIONS = (
    Caption(caption="a cat", subject="cat", attribute="object"),
    Caption(caption="a dog in the style of noto", subject="noto", attribute="style"),
)


def scores(row: IdentifiedUnit) -> list[dict]:
    return [
        score_row(
            row,
            name,
            measure=measure,
            clean=0.5,
            corrupted=0.1,
            # The UNet and the caption's score, larger, must not count.
            patched=0.1 + EFFECT.get((row.unit.caption.attribute, name), 0.39)
            if measure == "target"
            else 0.4,
        )
        for name in row.unit.components
        for measure in ("caption", "target")
    ]


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    plan = TracePlan(model="emoji-sd", scorer="builtin:emoji-sd", captions=CAPTIONS)
    parts = {Part.DENOISER: NAMES[2:], Part.TEXT_ENCODER: NAMES[:2]}
    components = [
        Component(
            name=name,
            part=part,
            kind=Kind.MLP,
            order=0,
            layer=0,
            num_parameters=1,
        )
        for part, names in parts.items()
        for name in names
    ]
    run = create_run(tmp_path / "run", plan, MANIFEST, components, steps=50)
    commit_all(run, scores)
    return Path(run.location)


def concept(kind: str) -> Concept:
    return Concept(concept="x", replacement="y", kind=ConceptKind(kind))


@pytest.mark.parametrize(
    ("kinds", "component", "attribute", "mean_ie"),
    [
        (("object",), NAMES[0], "object", 0.3),
        (("style",), NAMES[1], "style", 0.2),
        (("object", "style"), NAMES[1], None, 0.15),  # pooled: 0.05 against 0.15
        (("action",), NAMES[1], None, 0.15),  # not traced
    ],
)
def test_top_text_encoder_component_is_found(
    run_path: Path, kinds: tuple[str, ...], component: str, attribute: str | None, mean_ie: float
) -> None:
    located = locate(run_path, [concept(kind) for kind in kinds])
    assert located.component == component
    assert located.attribute == attribute
    assert located.mean_ie == pytest.approx(mean_ie)


def test_run_without_scores_is_refused(run_path: Path) -> None:
    for part in (run_path / "parts").glob("c*.parquet"):
        part.unlink()
    with pytest.raises(ConceptError, match="no trial of a text-encoder component"):
        locate(run_path, [concept("object")])


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        locate(tmp_path, [concept("object")])


FIRST_MLPS = ("text_encoder.layers.0.mlp", "text_encoder.layers.1.mlp")


@pytest.mark.parametrize(
    ("layers", "objective", "components"),
    [
        ((), "residual", FIRST_MLPS),
        (("auto",), "residual", FIRST_MLPS),
        (("text_encoder.layers.2.mlp",), "residual", ("text_encoder.layers.2.mlp",)),
        (("text_encoder.layers.[01].mlp*",), "residual", FIRST_MLPS),
        ((), "published", NAMES[:1]),
    ],
)
def test_the_mlps_of_the_located_layer_and_the_next_are_edited(
    run_path: Path,
    tmp_path: Path,
    layers: tuple[str, ...],
    objective: Literal["residual", "published"],
    components: tuple[str, ...],
) -> None:
    request = EditRequest(
        out=tmp_path / "edit", run=str(run_path), layers=layers, objective=objective
    )
    notes: list[str] = []
    plan = plan_edit((concept("object"),), request, note=notes.append)
    assert plan.settings.components == components
    assert f"editing {', '.join(components)}" in notes[0]


def test_auto_stands_alone(run_path: Path, tmp_path: Path) -> None:
    request = EditRequest(out=tmp_path / "edit", run=str(run_path), layers=("auto", NAMES[0]))
    with pytest.raises(ConceptError, match="--layer auto stands alone"):
        plan_edit((concept("object"),), request, note=print)


@pytest.mark.parametrize(
    ("names", "fields", "message"),
    [
        ("hot dog\nCat", {}, r"line 3: --keep keeps 'Cat', which is edited"),
        ("hot dog", {"preserve": 0.0}, "--keep has no effect with --preserve 0"),
        ("hot dog", {"objective": "published"}, "published objective keeps nothing.*--keep"),
        ("cats", {}, "line 2: --keep keeps 'cats', which is a form of 'cat', which is edited"),
    ],
)
def test_names_that_cannot_be_kept_are_refused(
    names: str, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.csv"
    kept.write_text(f"concept\n{names}\n")
    edited = (Concept(concept="cat", replacement="dog"),)
    request = EditRequest(
        out=tmp_path / "edit", model="emoji-sd", layers=(NAMES[0],), keep=kept, **fields
    )
    with pytest.raises(ConceptError, match=message):
        plan_edit(edited, request, note=print)


def test_names_to_keep_are_settings_of_the_edit(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text('{"concept": "hot dog"}\n{"concept": "Snoopy", "kind": "person"}\n')
    request = EditRequest(out=tmp_path / "edit", model="emoji-sd", layers=(NAMES[0],), keep=kept)
    plan = plan_edit((Concept(concept="dog", replacement="cat"),), request, note=print)
    assert [name.concept for name in plan.settings.keep] == ["hot dog", "Snoopy"]
    assert plan.settings.kept_concepts == plan.settings.keep


SETS = (
    set_of("text", 2, part=Part.TEXT_ENCODER),
    set_of("by-kind", 1, part=Part.TEXT_ENCODER, attribute="object"),
    set_of("by-kind", 1, part=Part.TEXT_ENCODER, attribute="style", first=1),
    set_of("denoiser", 1),
)


@pytest.fixture
def set_run(tmp_path: Path) -> Path:
    made = make_set_run(tmp_path / "sets", SETS, lambda *_: 0.5, attributes=("object", "style"))
    return Path(made.location)


def request(run: Path, **more: Any) -> EditRequest:
    return EditRequest(out=run.parent / "edit", run=str(run), **more)


def test_a_set_of_a_run_is_edited(set_run: Path) -> None:
    cat = Concept(concept="cat", kind=ConceptKind.OBJECT)
    notes: list[str] = []
    plan = plan_edit((cat,), request(set_run, component_set="text"), note=notes.append)
    assert plan.settings.components == (
        "text_encoder.layers.0.self_attn", "text_encoder.layers.1.self_attn",
    )  # fmt: skip
    assert plan.located.mean_ie == pytest.approx(0.2)
    assert (plan.located.attribute, plan.located.num_captions) == ("object", 12)
    assert "the set 'text' of" in notes[0]
    assert "restored together +0.2000" in notes[0]


def test_of_sets_of_one_name_that_of_the_concepts_kind_is_edited(set_run: Path) -> None:
    neon = Concept(concept="neon", kind=ConceptKind.STYLE)
    _, components = locate_set(set_run, "by-kind", (neon,))
    assert components == ("text_encoder.layers.1.self_attn",)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"component_set": "nothing"}, "has no set 'nothing': it has text, by-kind, denoiser"),
        ({"component_set": "denoiser"}, "has components of the denoiser"),
        ({"component_set": "text", "layers": ("text_encoder",)}, "both name components"),
        ({"component_set": "text", "run": None}, "name the run"),
    ],
)
def test_sets_that_are_not_edited(set_run: Path, more: dict[str, Any], said: str) -> None:
    cat = Concept(concept="cat", kind=ConceptKind.OBJECT)
    asked = EditRequest(**{"out": set_run.parent / "edit", "run": str(set_run), **more})
    with pytest.raises(ConceptError, match=said):
        plan_edit((cat,), asked, note=lambda _: None)


def test_a_set_for_each_kind_needs_concepts_of_one_kind(set_run: Path) -> None:
    concepts = tuple(
        Concept(concept=f"one {k.value}", kind=k) for k in (ConceptKind.OBJECT, ConceptKind.STYLE)
    )
    with pytest.raises(ConceptError, match="for object, style: edit concepts of one of these"):
        locate_set(set_run, "by-kind", concepts)
    _, components = locate_set(set_run, "text", concepts)
    assert len(components) == 2


MLP = "text_encoder.layers.0.mlp"
CAT, DOG = Concept(concept="cat", replacement="dog"), Concept(concept="dog", replacement="bus")


@pytest.mark.parametrize(
    ("concepts", "said"),
    [
        ((), "there is no concept"),
        (["cat"], r"give concepts as dqf.Concept\(concept=...\), not 'cat'"),
        (
            (CAT, Concept(concept="Cat", replacement="bus")),
            "concept 2: .* conflicts with concept 1",
        ),
        ((CAT, DOG), "concept 1: concept 'cat' becomes 'dog', which concept 2 edits"),
        ((CAT, Concept(concept="cats", replacement="buses")), "'cats' is a form of 'cat'"),
        ((CAT, Concept(concept="bus", replacement="cats")), "'cats', which is a form of 'cat'"),
        ((CAT, Concept(concept="bus", forms=("dog",))), "'dog', which is a form of 'bus'"),
        ((Concept(concept="a cat", replacement="dog"),), "starts with an article.* write 'cat'"),
        (
            (Concept(concept="cat", replacement="dog", prompts=("a {} and a cat",)),),
            "says 'cat' besides {}",
        ),
    ],
)
def test_concepts_that_cannot_be_edited_together(concepts: Any, said: str, tmp_path: Path) -> None:
    asked = EditRequest(out=tmp_path / "edit", model="emoji-sd", layers=(MLP,))
    with pytest.raises(ConceptError, match=said):
        plan_edit(concepts, asked, note=print)


def test_a_form_that_becomes_what_its_concept_becomes_is_edited(tmp_path: Path) -> None:
    asked = EditRequest(out=tmp_path / "edit", model="emoji-sd", layers=(MLP,))
    both = (CAT, Concept(concept="cats", replacement="dogs"))
    assert plan_edit(both, asked, note=print).concepts == both


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"images": -1}, "images: .*got -1"),
        ({"images": True}, "images is True"),
        ({"layers": MLP}, "layers: .* valid tuple"),
        ({"objective": "Published"}, "objective: .* 'residual' or 'published'"),
        ({"objective": "published", "preserve": 5.0}, "published objective has no --preserve"),
        ({"run": ""}, "give a run's folder"),
    ],
)
def test_a_request_of_other_types_is_refused(
    fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    given = {"out": tmp_path / "edit", "model": "emoji-sd", "layers": (MLP,), **fields}
    with pytest.raises((ConceptError, StoreError), match=said):
        plan_edit((CAT,), EditRequest(**given), note=print)


@pytest.mark.parametrize("column", ["weight", "prompts", "forms"])
def test_the_published_objective_refuses_what_it_does_not_read(column: str, tmp_path: Path) -> None:
    value = {"weight": 5, "prompts": ("a {}",), "forms": ("kitten",)}[column]
    cat = CAT.model_copy(update={column: value})
    asked = EditRequest(
        out=tmp_path / "edit", model="emoji-sd", layers=(MLP,), objective="published"
    )
    with pytest.raises(ConceptError, match=f"does not read the {column} of 'cat'"):
        plan_edit((cat,), asked, note=print)


@pytest.mark.parametrize(
    "columns", ["replacement\nbird,dog", "weight\nbird,5", "forms\nbird,birdie"]
)
def test_a_kept_name_has_no_settings_of_an_edited_one(columns: str, tmp_path: Path) -> None:
    (tmp_path / "kept.csv").write_text(f"concept,{columns}\n")
    asked = EditRequest(
        out=tmp_path / "edit", model="emoji-sd", layers=(MLP,), keep=tmp_path / "kept.csv"
    )
    with pytest.raises(ConceptError, match="line 2: a kept name has no "):
        plan_edit((CAT,), asked, note=print)


def test_a_run_of_another_model_decides_nothing_beside_a_layer(run_path: Path) -> None:
    asked = request(run_path, model="emoji-dit", layers=("transformer.context_embedder",))
    with pytest.raises(ConceptError, match="nothing is read of it: leave --from-run out"):
        plan_edit((CAT,), asked, note=print)


def test_no_edit_is_made_in_the_folder_of_a_run(run_path: Path) -> None:
    asked = EditRequest(out=run_path / "edit", model="emoji-sd", layers=(MLP,))
    with pytest.raises(ConceptError, match="is in a run's folder or an edit's"):
        plan_edit((CAT,), asked, note=print)
