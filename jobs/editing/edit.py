"""Edit a batch of concepts: collect keys, solve, write the edit's folder."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from engine.editing.covariance import known_sums
from engine.editing.editable import editable
from engine.editing.prompts import prompt_pairs
from engine.editing.published import published_edit
from engine.editing.readers import read_prompts
from engine.editing.solve import Collect, EditSettings, EditSolution, in_this_process, solve_edit
from engine.files import new_folder
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.vocabulary import Phrasebook, read_phrasebook
from jobs.editing.folder import write_edit
from jobs.editing.images import Shown, compare
from jobs.editing.manifest import BEFORE_AFTER
from jobs.editing.report import EditReport, EditSite
from schemas.concept import Concept
from schemas.numerics import Numerics

Note = Callable[[str], None]
"""Receives one line of progress."""


def _in_process(model: Diffusion) -> AbstractContextManager[Collect]:
    return nullcontext(in_this_process(model))


@dataclass(frozen=True, slots=True, kw_only=True)
class EditJob:
    """What `edit_batch` needs."""

    concepts: tuple[Concept, ...]
    model: str
    """A built-in name, a diffusers folder or a hub id."""
    located: EditSite
    """Why the first of the settings' components is edited."""
    out: Path
    settings: EditSettings = field(default_factory=EditSettings)
    numerics: Numerics
    """Steps and guidance of the images before and after."""
    scorer: str
    """What scores them."""
    images: int = 2
    """Images per prompt before and after; 0: none."""
    full_model: bool = False
    """Whether the folder gets a complete diffusers model too."""
    workers: Callable[[Diffusion], AbstractContextManager[Collect]] = _in_process
    """Opens what sums the keys: this process, or the workers of a Ray cluster."""


def edit_batch(job: EditJob, *, note: Note) -> EditReport:
    """Write the edit to `job.out` and return what was done; nothing is left on failure.

    ConceptError: `out` is occupied, a concept does not fit the tokenizer. UnknownComponent: a
    component does not end in a projection that an edit can change.
    """
    with new_folder(job.out) as work:
        note(f"opening {job.model}")
        book = read_phrasebook(source_folder(job.model))
        model = open_model(job.model)
        check_prompts(model, job.concepts, book=book, settings=job.settings)
        solved = solve(model, job, book=book)
        note(
            f"{solved.key_pairs} key pairs and {solved.kept_keys} kept keys in "
            f"{solved.key_seconds:.2f} s, solved in {solved.solve_seconds:.2f} s"
        )
        shown = _shown(model, job, solved, book, work, note) if job.images else Shown()
        report = _report(job, solved, shown)
        write_edit(
            work,
            model=model,
            originals=solved.originals,
            weights=solved.weights,
            changes_float64=solved.changes,
            manifest=report.as_dict(),
            full_model=job.full_model,
        )
    return report


def solve(model: Diffusion, job: EditJob, *, book: Phrasebook) -> EditSolution:
    """Return the edited weights of a job, on the workers that it names."""
    if job.settings.objective == "published":
        (component,) = job.settings.components
        return published_edit(model, job.concepts, component=component, ridge=job.settings.ridge)
    with job.workers(model) as collect:
        return solve_edit(
            model,
            job.concepts,
            book=book,
            settings=job.settings,
            general=known_sums(model, job.settings, book=book),
            collect=collect,
        )


def check_prompts(
    model: Diffusion,
    concepts: Sequence[Concept],
    *,
    book: Phrasebook,
    settings: EditSettings,
) -> None:
    """Raise ConceptError if a prompt of a concept or target does not fit the tokenizer."""
    pairs = prompt_pairs(concepts, book=book)
    component = editable(model, settings.components[0]).component
    read_prompts(model, component, [caption for p in pairs for caption in (p.source, p.target)])


def _shown(
    model: Diffusion,
    job: EditJob,
    solved: EditSolution,
    book: Phrasebook,
    work: Path,
    note: Note,
) -> Shown:
    note("drawing and scoring images before and after")
    return compare(
        model,
        solved.weights,
        concepts=job.concepts,
        book=book,
        images=job.images,
        numerics=job.numerics,
        scorer=job.scorer,
        path=work / BEFORE_AFTER,
    )


def _report(job: EditJob, solved: EditSolution, shown: Shown) -> EditReport:
    return EditReport(
        out=str(job.out),
        model=job.model,
        scorer=job.scorer,
        numerics=job.numerics,
        located=job.located,
        concepts=job.concepts,
        settings=job.settings,
        key_pairs=solved.key_pairs,
        kept_keys=solved.kept_keys,
        key_seconds=solved.key_seconds,
        solve_seconds=solved.solve_seconds,
        relative_changes=relative_changes(solved),
        scores=shown.scores,
        untouched_change=shown.untouched_change,
    )


def relative_changes(solved: EditSolution) -> Mapping[str, float]:
    """Return the Frobenius norm of dW over that of W0, by the weight's public name."""
    return {
        name: float(change.norm() / solved.originals[name].double().norm().cpu())
        for name, change in solved.changes.items()
    }
