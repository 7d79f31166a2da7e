"""Edit a batch of concepts: collect keys, solve, write the edit's folder."""

from pathlib import Path

from engine.editing.checkpoint import check_copyable
from engine.editing.covariance import known_sums
from engine.editing.pairs import prompt_pairs
from engine.editing.prompts import further_captions
from engine.editing.published import published_edit
from engine.editing.readers import locate_subjects
from engine.editing.solve import EditSolution, solve_edit
from engine.files import new_folder
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model, open_tokenizers
from engine.model.vocabulary import Phrasebook, read_phrasebook
from jobs.editing.folder import write_edit
from jobs.editing.images import Shown, compare
from jobs.editing.manifest import BEFORE_AFTER, MANIFEST
from jobs.editing.plan import EditPlan
from jobs.editing.warnings import warnings
from jobs.runs.progress import Note
from schemas.manifest import EditManifest


def edit_batch(plan: EditPlan, *, note: Note) -> EditManifest:
    """Write the edit to `plan.out` and return its manifest; nothing is left on failure.

    ConceptError: `out` is occupied, a concept does not fit the tokenizer, or the whole model is
    asked for and cannot be copied. UnknownComponent: a component does not end in a projection that
    an edit can change.
    """
    with new_folder(plan.out, replacing=MANIFEST if plan.overwrite else None) as work:
        note(f"opening {plan.model}")
        book = read_phrasebook(source_folder(plan.model))
        check_prompts(plan, book=book)
        if plan.full_model:
            check_copyable(source_folder(plan.model))
        model = open_model(plan.model)
        for doubt in warnings(model, plan, book=book):
            note(f"warning: {doubt}")
        return edit_into(work, plan, model=model, book=book, note=note)


def edit_into(
    work: Path, plan: EditPlan, *, model: Diffusion, book: Phrasebook, note: Note
) -> EditManifest:
    """Solve a plan with its model opened, write the edit into `work` and return its manifest."""
    solved = solve(model, plan, book=book)
    note(
        f"{solved.key_pairs} key pairs and {solved.kept_keys} kept keys in "
        f"{solved.key_seconds:.2f} s, solved in {solved.solve_seconds:.2f} s"
    )
    shown = _shown(model, plan, solved, book, work, note) if plan.images else Shown()
    return write_edit(work, plan, model=model, solved=solved, shown=shown)


def solve(model: Diffusion, plan: EditPlan, *, book: Phrasebook) -> EditSolution:
    """Return the edited weights of a plan, on the workers that it names."""
    if plan.settings.objective == "published":
        (component,) = plan.settings.components
        return published_edit(model, plan.concepts, component=component, ridge=plan.settings.ridge)
    with plan.workers(model) as collect:
        return solve_edit(
            model,
            plan.concepts,
            book=book,
            settings=plan.settings,
            general=known_sums(model, plan.settings, book=book, collect=collect),
            collect=collect,
        )


def check_prompts(plan: EditPlan, *, book: Phrasebook) -> None:
    """Raise ConceptError if a prompt of a concept, its replacement or a name that is kept does not
    fit one of the model's tokenizers, which alone are opened."""
    settings = plan.settings
    pairs = prompt_pairs(
        plan.concepts, book=book, forms=settings.forms, kept=settings.kept_concepts
    )
    captions = [caption for p in pairs for caption in (p.source, p.replacement)]
    captions += further_captions(plan.concepts, book=book, kept=settings.kept_concepts)
    locate_subjects(list(open_tokenizers(plan.model).values()), captions)


def _shown(
    model: Diffusion,
    plan: EditPlan,
    solved: EditSolution,
    book: Phrasebook,
    work: Path,
    note: Note,
) -> Shown:
    note("drawing and scoring images before and after")
    return compare(
        model,
        solved.weights,
        concepts=plan.concepts,
        book=book,
        images=plan.images,
        numerics=plan.numerics,
        scorer=plan.scorer,
        path=work / BEFORE_AFTER,
    )
