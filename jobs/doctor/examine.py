"""The faults of a run, from its folder alone, and the repair of those that can be repaired."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from jobs.doctor.findings import Fault, Finding, State
from jobs.doctor.images import image_faults
from jobs.doctor.parts import Audit, audit
from jobs.doctor.surroundings import counted_strangers, surroundings
from jobs.doctor.tables import check_tables, compared_units
from jobs.pool.attempts import attempts, has_finished
from jobs.query.catalog import CATALOG, catalog_state, write_catalog
from jobs.runs.kept_images import FOLDER
from jobs.runs.kinds import open_any
from jobs.runs.progress import Progress
from jobs.runs.run import PLAN, Run
from jobs.runs.storage.opening import open_storage
from jobs.runs.trace_run import TraceRun
from schemas.errors import StoreError, first_line

CHECKS = ("parts", "units", "rows", "scores")
"""The checks of every part."""
SHOWN = 3
"""Faults that are shown in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings, and the files that a repair moves to the quarantine."""

    findings: tuple[Finding, ...]
    damaged: tuple[str, ...] = ()
    is_repairable: bool = False
    """Whether the plan can be trusted, so that files that contradict it can be moved away."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.state is not State.WRONG for finding in self.findings)


def examine(location: str, on_progress: Callable[[Progress], None]) -> Report:
    """Return the findings on a run; StoreError if there is none or it cannot be reached."""
    if not open_storage(location).exists(PLAN):
        open_any(location)  # raises the error that says how to make a run
    try:
        run = open_any(location)
        _ = run.manifest, run.unit_ids
    except StoreError as error:
        todo = f"if it was changed, put the run's own {PLAN} back"
        text = f"{PLAN} cannot be used: {first_line(error)}"
        return Report(findings=(Finding(check="plan", state=State.WRONG, found=text, todo=todo),))
    return _examine(run, on_progress)


def _examine(run: Run[Any], on_progress: Callable[[Progress], None]) -> Report:
    def on_file(so_far: Audit, total: int) -> None:
        on_progress(Progress(done=so_far.num_files, failed=len(so_far.faults), total=total))

    # One database: to make one takes longer than to read a small run.
    with duckdb.connect() as connection:
        tables, audited = check_tables(run, connection), audit(run, connection, on_file)
    images = image_faults(run) if isinstance(run, TraceRun) else []
    plan = _plan(run, tables.run_ids + audited.run_ids)
    checks = [
        _tables(run, tables.faults),
        *_parts(run, audited),
        *([_images(run, images)] if isinstance(run, TraceRun) else []),
        _progress(run, audited),
    ]
    names = [fault.name for fault in (*tables.faults, *audited.faults, *images)]
    return Report(
        findings=(plan, *checks, *surroundings(run)),
        damaged=tuple(dict.fromkeys([*names, *counted_strangers(run)])),
        is_repairable=plan.state is State.OK,
    )


def repair(run: Run[Any], report: Report) -> Iterator[str]:
    """Repair what can be repaired without losing a score that counts; yield what was done.

    StoreError: the plan must be repaired first, or a process works on the run.
    """
    if not report.is_repairable:
        raise StoreError(f"nothing can be repaired before {PLAN} is repaired")
    for attempt in attempts(run):
        if attempt.is_alive:
            raise StoreError(f"process {attempt.pid} works on run {run.location}: stop it first")
    for name in filter(run.storage.exists, report.damaged):
        run.quarantine(name)
        yield f"{name} was moved to quarantine/"
    run.complete()
    # Listed again: a part whose pack was moved away counts again.
    for name in run.live().packed:
        run.storage.remove(name)
        yield f"{name} was removed: its pack holds it"
    run.storage.remove_leftovers()
    if isinstance(run, TraceRun):
        _repair_catalog(run)


def _repair_catalog(run: TraceRun) -> None:
    state = catalog_state(run)
    if state and state.error:
        run.quarantine(CATALOG)
    write_catalog(run)


def _plan(run: Run[Any], run_ids: Counter[str]) -> Finding:
    """Return whether most files were made by this plan."""
    others = run_ids.total() - run_ids[run.id]
    if others > run_ids[run.id]:
        text = f"{others} of {run_ids.total()} parts are of another plan: {PLAN} was edited"
        todo = "put the run's own plan.json back before anything else; resume would move all away"
        return Finding(check="plan", state=State.WRONG, found=text, todo=todo)
    text = f"{PLAN} is whole and the one of the parts: run {run.id}"
    return Finding(check="plan", state=State.OK, found=text)


def _tables(run: Run[Any], faults: Sequence[Fault]) -> Finding:
    compared, total = len(compared_units(run)), len(run.units)
    units = f"all {total}" if compared == total else f"a sample of {compared} of {total}"
    fine = f"tables are whole and as the plan says: {units} units compared"
    if not run.tables():
        fine = f"the empty parts are whole: {run.noun}s have no other tables"
    todo = f"`dqf doctor {run.argument} --repair` writes them again from the plan"
    return _of_faults("tables", faults, fine=fine, todo=todo)


def _parts(run: Run[Any], audited: Audit) -> Iterator[Finding]:
    todo = (
        f"`dqf doctor {run.argument} --repair` moves them away, then {run.resume_hint()} makes "
        "others"
    )
    faults = {check: [f for f in audited.faults if f.check == check] for check in CHECKS}
    if audited.gone and not faults["parts"]:
        text = f"{audited.gone} of the parts were packed while this ran"
        yield Finding(check="parts", state=State.NOTE, found=text, todo="ask again")
    else:
        fine = f"{audited.num_files} parts and packs are whole and of this run"
        yield _of_faults("parts", faults["parts"], fine=fine, todo=todo)
    fine = "every unit of a committed chunk is in it, either scored or failed"
    yield _of_faults("units", faults["units"], fine=fine, todo=todo)
    uneven = [slab for slab, sizes in audited.sizes.items() if len(sizes) > 1]
    if uneven and not faults["rows"]:
        yield _uneven(audited, uneven)
    else:
        fine = "every unit has as many scores as the plan says"
        yield _of_faults("rows", faults["rows"], fine=fine, todo=todo)
    yield _scores(audited, faults["scores"], todo)


def _scores(audited: Audit, faults: Sequence[Fault], todo: str) -> Finding:
    if audited.repeated and not faults:
        # Another check names the file that holds these scores besides its own units.
        text = f"{audited.repeated} of {audited.num_scores} scores are there more than once"
        return Finding(check="scores", state=State.WRONG, found=text, todo=todo)
    return _of_faults("scores", faults, fine=f"{audited.num_scores} scores, each once", todo=todo)


def _images(run: TraceRun, faults: Sequence[Fault]) -> Finding:
    fine = f"{len(run.storage.files(FOLDER))} files of kept images are whole"
    todo = f"no score depends on them: `dqf doctor {run.argument} --repair` moves them away"
    return _of_faults("images", faults, fine=fine, todo=todo)


def _uneven(audited: Audit, slabs: Sequence[int]) -> Finding:
    least, most = min(audited.sizes[slabs[0]]), max(audited.sizes[slabs[0]])
    text = f"units of slab {slabs[0]} have {least} to {most} scores, as their captions' tokens do"
    todo = "nothing, where captions differ in length: how many there should be is not known here"
    return Finding(check="rows", state=State.NOTE, found=text, todo=todo)


def _of_faults(check: str, faults: Sequence[Fault], *, fine: str, todo: str) -> Finding:
    if not faults:
        return Finding(check=check, state=State.OK, found=fine)
    texts = [fault.text for fault in faults[:SHOWN]]
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    text = "; ".join([*texts, *more])
    return Finding(check=check, state=State.WRONG, found=text, todo=todo)


def _progress(run: Run[Any], audited: Audit) -> Finding:
    planned = len(run.units)
    left = planned - audited.scored - audited.failed
    text = f"{planned} units planned, {audited.scored} scored, {audited.failed} failed, {left} left"
    todo = run.resume_hint()
    if not left:
        todo = run.resume_hint("--retry-failed") if audited.failed else ""
    elif has_finished(run):
        text += ", though the run had finished: files of it are gone"
        return Finding(check="progress", state=State.NOTE, found=text, todo=todo)
    return Finding(check="progress", state=State.OK, found=text, todo=todo)
