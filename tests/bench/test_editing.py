"""The benches of edits count right images, edit the lists that they say, and solve what is said."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.editing.batch import EDITS, choose_concepts, sequential_edit
from bench.editing.drawn import Asked, Outcome, line, row_of
from bench.editing.mixed import (
    SIZES,
    made_up,
    mixed_concepts,
    names_of,
    replacement_said,
    two_objects,
)
from bench.editing.peers import uce, uce_components
from bench.editing.put_back import keys_and_values
from engine.editing.delta import replaced
from engine.editing.editable import editable_together
from engine.editing.solve import solve_edit
from engine.evaluation.wordings import fill
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.sampling import encode
from engine.model.vocabulary import Phrasebook, read_phrasebook
from schemas.concept import Concept, ConceptKind, ConceptMode
from schemas.edit_settings import EditSettings
from schemas.evaluation import EvaluationPrompt, Group
from tests.rounding import assert_near

CONCEPTS = [Concept(concept="cat", replacement="dog"), Concept(concept="apple", replacement="ship")]


def asked(name: str, group: Group = Group.KEPT, *, seed: int = 0, list_of: str = "1") -> Asked:
    template = "a drawing of {article}"
    return Asked(
        cluster=f"{list_of} {name}",
        kind=ConceptKind.OBJECT,
        prompt=EvaluationPrompt(
            group=group,
            text=fill(template, name),
            template=template,
            kind=ConceptKind.OBJECT,
            name=name,
        ),
        seed=seed,
        replacement="dog" if group is Group.CONCEPT else None,
    )


def test_shares_are_over_images_and_h_is_of_both() -> None:
    shown = [("cat", "cat"), ("cat", "dog"), ("owl", "dog"), ("owl", "fox")]
    kept = [("fox", "fox"), ("cow", "cow"), ("cow", "owl"), ("pig", "pig"), ("bus", "bus")]
    row = row_of(
        [
            *(Outcome(asked=asked(name, Group.CONCEPT), shown=s) for name, s in shown),
            *(Outcome(asked=asked(name), shown=s) for name, s in kept),
        ],
        edit="x",
    )
    assert (row["still_recognised"], row["kept"], row["replacement"]) == (0.25, 0.8, 0.5)
    assert row["H"] == pytest.approx(2 * 0.75 * 0.8 / (0.75 + 0.8))
    assert (row["erased_images"], row["kept_images"]) == (4, 5)
    # Drawn by name: one concept alone is shown in half of its images, or in none.
    assert row["still_recognised_interval"] == (0.0, 0.5)
    assert line(row, ["edit"]).startswith("| x | 0.250 (0.00 to 0.50) | 0.800 (")


def test_without_concepts_there_is_no_h() -> None:
    row = row_of([Outcome(asked=asked("fox"), shown="fox")], edit="x")
    assert row["H"] is None
    assert np.isnan(float(str(row["still_recognised"])))
    assert line(row, ["edit"]) == "| x |  | 1.000 |  |  | 0 | 1 |"


def test_thirds_of_all_names_edit_each_once() -> None:
    names = names_of("emoji-sd")
    lists = [mixed_concepts(names, third, every=True) for third in range(3)]
    counts = Counter((c.kind, c.concept) for concepts in lists for c in concepts)
    assert counts == {(kind, name): 1 for kind, listed in names.items() for name in listed}
    for concepts in lists:
        edited = {(c.kind, c.concept) for c in concepts}
        assert not edited & {(c.kind, c.replacement) for c in concepts}


def test_a_mixed_list_has_its_sizes_and_other_seeds_other_names() -> None:
    names = names_of("emoji-dit")
    first, second = (mixed_concepts(names, seed, every=False) for seed in (1, 2))
    assert Counter(c.kind for c in first) == SIZES
    assert all(c.mode is ConceptMode.UPDATE and c.replacement in names[c.kind] for c in first)
    assert {c.concept for c in first} != {c.concept for c in second}


def test_made_up_names_are_as_many_as_asked_for_and_none_exists() -> None:
    book = read_phrasebook(source_folder("emoji-sd"))
    concepts = choose_concepts(book, 10, seed=1)
    words = made_up(900, concepts, book)
    assert len({c.concept for c in words}) == 900
    assert not {c.concept for c in words} & {*book.objects, *book.styles}
    assert not {c.replacement for c in words} & {c.concept for c in concepts}


def test_two_objects_are_asked_for_each_and_judged_next_to_the_replacement() -> None:
    both = two_objects(CONCEPTS, ("dog", "ship", "owl", "cow"), 2, of_list="1", images=1)
    assert len(both) == 8
    for a in both:
        assert a.prompt.template is not None
        assert a.prompt.name is not None
        assert fill(a.prompt.template, a.prompt.name) == a.prompt.text
    texts = [a.prompt.text for a in both if not a.is_erased]
    assert texts[:2] == ["a drawing of a cat and a ship", "a drawing of an owl and a cat"]
    (edited,) = {a.prompt.edited_template for a in both if a.prompt.text == texts[0]} - {None}
    assert edited == "a drawing of a dog and {article}"
    assert [a.replacement for a in both if a.is_erased] == ["dog", "dog", "ship", "ship"]
    of_other = next(a for a in both if a.prompt.text == texts[0] and not a.is_erased)
    assert replacement_said(of_other).prompt.text == "a drawing of a dog and a ship"


@pytest.fixture(scope="module")
def model(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    """Return the tiny model with a vocabulary of its own."""
    folder = tmp_path_factory.mktemp("edited") / "tiny"
    shutil.copytree(tiny_sd, folder)
    words = {"objects": ["cat", "dog", "apple", "ship", "table"], "styles": [], "colors": ["red"]}
    (folder / "vocabulary.json").write_text(json.dumps(words))
    return open_model(str(folder), device="cpu")


def book_of(model: Diffusion) -> Phrasebook:
    return read_phrasebook(source_folder(model.name))


def test_a_sequence_of_one_batch_is_the_joint_edit(model: Diffusion) -> None:
    settings = EditSettings(components=("text_encoder.layers.0.mlp",))
    joint = solve_edit(model, CONCEPTS, book=book_of(model), settings=settings).weights
    one, two = (
        sequential_edit(model, CONCEPTS, batches, settings, book=book_of(model)).weights
        for batches in (1, 2)
    )
    (name,) = joint
    assert torch.equal(one[name], joint[name])
    assert not torch.equal(two[name], joint[name])
    assert EDITS["sequential-5"].components == EDITS["kept-mlps"].components


@torch.inference_mode()
def rows(model: Diffusion, texts: Sequence[str]) -> torch.Tensor:
    """Return the text rows at the last word of one-word texts, `_NC`."""
    cond = encode(model, texts)
    (encoder,) = model.encoders
    eos = [len(encoder.tokenizer(text).input_ids) - 1 for text in texts]
    return cond.text_RLD[torch.arange(len(texts)), torch.tensor(eos) - 1]


@pytest.mark.parametrize("to_end", [False, True])
def test_uce_says_the_replacement_at_the_concept_and_keeps_the_kept(
    model: Diffusion, to_end: bool
) -> None:
    concept = [CONCEPTS[0]]
    target = editable_together(model, uce_components(model)).projections
    assert len(target) == 2 * len(uce_components(model)) > 2
    free = uce(model, concept, ridge=1e-9, preserve=0.0, to_end=False)
    kept = uce(model, concept, ridge=1e-9, preserve=1e6, to_end=to_end)
    cat_D, dog_D, table_D = rows(model, ["cat", "dog", "table"])
    for name, layer in target.items():
        assert_near(free[name] @ cat_D, layer.weight @ dog_D)
        assert_near(kept[name] @ table_D, layer.weight @ table_D)
        moved = float((free[name] @ table_D - layer.weight @ table_D).norm())
        assert moved > 10 * float((kept[name] @ table_D - layer.weight @ table_D).norm())


def test_keys_and_values_of_one_encoder_are_those_of_an_edit_alone(model: Diffusion) -> None:
    settings = EditSettings(components=tuple(uce_components(model)))
    alone = solve_edit(model, CONCEPTS, book=book_of(model), settings=settings).weights
    ours = keys_and_values(model, CONCEPTS, [{}])
    assert alone.keys() == ours.keys()
    for name, weight_ED in alone.items():
        assert_near(ours[name], weight_ED)


def test_the_original_rows_hold_the_edit_when_the_encoder_is_put_back(model: Diffusion) -> None:
    book, mlp = book_of(model), EditSettings(components=("text_encoder.layers.0.mlp",))
    edited = solve_edit(model, CONCEPTS, book=book, settings=mlp).weights
    left, both = (
        keys_and_values(model, CONCEPTS, encoders) for encoders in ([edited], [edited, {}])
    )
    cat_D, dog_D = rows(model, ["a picture of a cat", "a picture of a dog"])
    for name, layer in editable_together(model, uce_components(model)).projections.items():
        wanted_E = layer.weight @ dog_D
        off = [float((w[name] @ cat_D - wanted_E).norm()) for w in (left, both)]
        assert off[1] < off[0]
    with replaced(model, edited):
        assert not torch.equal(rows(model, ["a picture of a cat"])[0], cat_D)
