"""Evaluating an edit: the evaluation is planned, run on Ray, summed up and shown in pictures."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engine.editing.delta_file import check_evaluates, delta_hash
from engine.editing.prompts import compounds_of, known_names
from engine.evaluation.given import given_prompt
from engine.evaluation.prompts import subjects
from engine.evaluation.wordings import Words, choices, fill, read_words, with_kept
from engine.files import check_writable, is_folder, refuse_links, whole_file, write_whole
from engine.model import registry
from engine.model.defaults import default_sampling
from engine.model.hub import source_folder
from engine.model.opening import check_model, count_steps, open_tokenizers
from engine.model.scorer import check_scorer, check_texts
from engine.model.tokens import check_lengths
from engine.model.vocabulary import read_phrasebook
from engine.statistics.bootstrap import LEVEL, RESAMPLES
from jobs.cluster.connection import Cluster
from jobs.editing.grid import draw_grid
from jobs.editing.whole import check_model_of, read_edit
from jobs.evaluation.cut import warn_of_cuts
from jobs.evaluation.measures import ShownImages, results, shown_images
from jobs.evaluation.worker import EvaluationWorker
from jobs.input.concepts import check_concepts
from jobs.input.emma import EMMA, read_emma
from jobs.input.given_prompts import Given, read_given
from jobs.pool.driver import drive_run
from jobs.pool.limits import Limits
from jobs.runs.evaluation_run import EDIT, EvaluationRun
from jobs.runs.opening import create_as
from jobs.runs.png import CorruptImage, read_png
from jobs.runs.progress import Note, Progress
from jobs.runs.provenance import manifest_of
from schemas.concept import Concept, ConceptKind
from schemas.documents import checked
from schemas.errors import ConceptError, StoreError, first_line
from schemas.evaluation import EvaluationPlan, Group
from schemas.numerics import Numerics
from schemas.printable import shown
from schemas.prompt_set import PromptSet
from schemas.results import PICTURES, SUMMARY, GroupResult


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The user's settings of an evaluation, of one edit or of several."""

    seeds: Annotated[int, Field(ge=1, le=100_000)] = 4
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Denoising steps; the model's own by default."""
    scorer: Annotated[str, Field(min_length=1)] | None = None
    """The scorer's name or path; the model's own by default."""
    prompts: PromptSet = PromptSet.FULL
    given: str | Path | None = None
    """Further prompts of the concepts: a file, or `emma:` and the folder of a checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest(EvaluationSettings):
    """A user's request for the evaluation of an edit."""

    edit: Path
    """The edit's folder."""


def prepare_evaluation(request: EvaluationRequest, out: Path) -> EvaluationRun:
    """Return the evaluation of an edit at `out`; it is made if there is none.

    ConceptError, ModelUnavailable: the edit, its model or the scorer is missing. StoreError:
    another evaluation is at `out`, or it cannot be written.
    """
    plan = plan_evaluation(request)
    return create_as(EvaluationRun, out, plan, manifest_of(model=plan.model, scorer=plan.scorer))


def plan_evaluation(request: EvaluationRequest) -> EvaluationPlan:
    """Return the plan of an evaluation; nothing is drawn or written. Errors: as the run's."""
    request = checked(EvaluationRequest, request, error=ConceptError)
    manifest = read_edit(request.edit)
    check_model_of(manifest)
    check_concepts(manifest.concepts)
    edits = {EDIT: delta_hash(request.edit)}
    return make_plan(
        manifest.concepts,
        model=manifest.model,
        edits=edits,
        asked=request,
        forms=manifest.settings.forms,
        kept=manifest.settings.kept_concepts,
    )


def make_plan(
    concepts: Sequence[Concept],
    *,
    model: str,
    edits: Mapping[str, str],
    asked: EvaluationSettings,
    forms: bool = True,
    kept: Sequence[Concept] = (),
) -> EvaluationPlan:
    """Return the plan that evaluates edits of `concepts`; `edits` has the hashes of their deltas.

    `kept`: names that the edits keep besides the model's own. ConceptError: a line of the user's
    own prompts is wrong. PlanError: one of them does not fit a tokenizer.
    """
    scorer = asked.scorer or registry.default_scorer(model)
    check_scorer(scorer)
    check_model(model)
    own = default_sampling(model)
    steps = asked.steps or own.steps
    count_steps(model, scheduler=None, steps=steps)
    folder = source_folder(model)
    book = read_phrasebook(folder)
    words = _words(folder, concepts, kept, compounds=compounds_of(concepts, book=book))
    names = choices(concepts, words)
    known = known_names(concepts, book=book, kept=kept)
    given = [
        given_prompt(text, concept, known=known, words=words)
        for text, concept in _given(asked.given, concepts, model=model)
    ]
    if given:
        judged = [(p.template, names[p.kind]) for p in given if p.template and p.kind]
        check_texts(
            scorer, [fill(template, name) for template, options in judged for name in options]
        )
    return EvaluationPlan(
        edits=dict(edits),
        model=model,
        scorer=scorer,
        concepts=_by_kind(concepts),
        names=names,
        subjects=subjects(concepts, words, prompt_set=asked.prompts, forms=forms, given=given),
        seeds=tuple(range(asked.seeds)),
        numerics=Numerics(steps=steps, guidance=own.guidance),
    )


def _words(
    folder: Path, concepts: Sequence[Concept], kept: Sequence[Concept], *, compounds: Sequence[str]
) -> Words:
    """Return the words of a model, with all names that an edit keeps."""
    words = read_words(folder, concepts)
    further = [*kept, *(Concept(concept=name) for name in compounds)]
    for kind in dict.fromkeys(name.kind for name in further):
        words = with_kept(words, [name.concept for name in further if name.kind is kind], kind)
    return words


def _given(
    source: str | Path | None, concepts: Sequence[Concept], *, model: str
) -> tuple[Given, ...]:
    """Return the user's own prompts; PlanError if one does not fit a tokenizer."""
    if source is None:
        return ()
    if str(source).startswith(EMMA):
        read = read_emma(Path(str(source).removeprefix(EMMA)), concepts)
    else:
        read = read_given(Path(source), concepts)
    for tokenizer in open_tokenizers(model).values():
        check_lengths(tokenizer, [text for text, _ in read], "prompt")
    return read


def evaluate(
    run: EvaluationRun,
    edit: Path,
    *,
    cluster: Cluster,
    retry_failed: bool,
    on_progress: Callable[[Progress], None],
    note: Note,
) -> tuple[Progress, list[GroupResult]]:
    """Evaluate the remaining units of a run; return its progress and one result per group.

    The summary and the pictures are written into the run's folder. A unit that fails is recorded,
    and the others are still evaluated. Texts that a tokenizer or the scorer cuts are noted.
    """
    if not isinstance(run, EvaluationRun):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StoreError(f"give the evaluation of prepare_evaluation, not {shown(run)}")
    edit = Path(edit)
    check_evaluates(edit, run.plan.edits.get(EDIT), run.location)
    _check_outputs(run)
    warn_of_cuts(run.plan, note)
    end = drive_run(
        run,
        cluster=cluster,
        worker_class=EvaluationWorker,
        options={"edits": {EDIT: str(edit.resolve())}},
        limits=Limits(failed=1.0),
        retry_failed=retry_failed,
        on_progress=on_progress,
        note=note,
    )
    measured = results(run)
    write_summary(run, measured, end)
    draw_pictures(run)
    return end, measured


def _check_outputs(run: EvaluationRun) -> None:
    """Raise StoreError if the summary or a picture could not be written once all is drawn."""
    location = Path(run.location)
    pictures = location / PICTURES
    if not is_folder(pictures) and os.path.lexists(pictures):
        raise StoreError(f"cannot write in {pictures}: it is not a folder, remove it")
    groups = {prompt.group for subject in run.plan.subjects for prompt in subject.prompts}
    files = [pictures / f"{group}.png" for group in groups] if is_folder(pictures) else []
    for path in (location / SUMMARY, *files):
        check_writable(path, error=StoreError, within=location)


def write_summary(run: EvaluationRun, measured: Sequence[GroupResult], end: Progress) -> None:
    """Write `evaluation.json`: how the images were made, and every measure."""
    plan = run.plan
    summary = {
        "edit": plan.edits[EDIT],
        "model": plan.model,
        "scorer": plan.scorer,
        "concepts": plan.concepts,
        "numerics": plan.numerics.model_dump(),
        "seeds": len(plan.seeds),
        "units": asdict(end),
        "intervals": f"bootstrap over names, {RESAMPLES} resamples, percentiles at {LEVEL:.0%}",
        "results": [asdict(result) for result in measured],
    }
    content = (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode()
    write_whole(Path(run.location, SUMMARY), content, within=Path(run.location))


def draw_pictures(run: EvaluationRun) -> None:
    """Write one picture per group: a few of its prompts, evenly spread over its names."""
    for group, group_rows in groupby(shown_images(run), key=lambda row: row.group):
        by_prompt = {
            prompt: list(rows) for prompt, rows in groupby(group_rows, key=lambda row: row.prompt)
        }
        most = max(map(len, by_prompt.values()))
        # A unit that failed leaves a gap: its prompt is left out.
        whole = {prompt: rows for prompt, rows in by_prompt.items() if len(rows) == most}
        try:
            before, after = (
                np.stack([_pixels(side(row) for row in rows) for rows in whole.values()])
                for side in (_before, _after)
            )
        except (CorruptImage, ValueError) as error:  # ValueError: images of several sizes
            raise StoreError(
                f"{run.location} has damaged images of group {shown(group)} "
                f"({first_line(error)}): evaluate the edit again under another --out"
            ) from error
        location = Path(run.location)
        refuse_links(location / PICTURES, within=location)
        (location / PICTURES).mkdir(exist_ok=True)
        # The parts of a run may come from somebody else: a file's name must be a group's, not any
        # path.
        picture = location / PICTURES / f"{Group(group).value}.png"
        with whole_file(picture, within=location) as file:
            draw_grid(list(whole), before=before, after=after, file=file)


def _before(images: ShownImages) -> bytes:
    return images.image_before


def _after(images: ShownImages) -> bytes:
    return images.image_after


def _pixels(pngs: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(read_png(content)) for content in pngs])


def _by_kind(concepts: Sequence[Concept]) -> dict[ConceptKind, tuple[str, ...]]:
    kinds = dict.fromkeys(concept.kind for concept in concepts)
    return {kind: tuple(c.concept for c in concepts if c.kind is kind) for kind in kinds}
