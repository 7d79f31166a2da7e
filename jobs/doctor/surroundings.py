"""Checks around a run's data: foreign files, leftovers, the catalog, attempts, processes."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.cluster.processes import orphans
from jobs.doctor.findings import Finding, State
from jobs.pool.attempts import Attempt, attempts, changed_versions
from jobs.query.catalog import CATALOG, catalog_state
from jobs.query.kept_statistics import FOLDER as STATISTICS_FOLDER
from jobs.query.kept_statistics import NAME as STATISTICS_NAME
from jobs.query.kept_statistics import damaged_statistics, kept_statistics, key_of
from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import EvaluationRun
from jobs.runs.kept_images import FOLDER as IMAGES_FOLDER
from jobs.runs.kept_images import IMAGE_NAME
from jobs.runs.run import Run
from jobs.runs.storage.local import TEMPORARY, LocalStorage
from jobs.runs.trace_run import TraceRun
from schemas.attack import SUMMARY as ATTACK_SUMMARY
from schemas.errors import StoreError, first_line
from schemas.results import SUMMARY as EVALUATION_SUMMARY
from schemas.views import TABLES

SHOWN = 10
"""The number of names that are listed."""
FOLDERS = ("", "parts", "packs", "attempts", "quarantine", IMAGES_FOLDER, STATISTICS_FOLDER)
"""The folders in which dqf writes, relative to the run's folder."""
OF_ANY = re.compile(
    r"plan\.json|quarantine/.+"
    r"|parts/(empty|c\d{8}(\.r\d{2})?)\.parquet|packs/(empty|g\d{6})\.parquet"
    r"|attempts/\d{4}(\.end\.json|\.json|\.log)"
)
"""Names of the files that dqf makes there for a run of any kind."""
OF_KIND: dict[type[Run[Any]], str] = {
    TraceRun: rf"({'|'.join(TABLES)})\.parquet|catalog\.duckdb.*|report\.html"
    rf"|{IMAGE_NAME.pattern}|{STATISTICS_NAME.pattern}",
    EvaluationRun: rf"{re.escape(EVALUATION_SUMMARY)}|images/[^/]+\.png",
    AttackRun: re.escape(ATTACK_SUMMARY),
}
"""Names of the others, by the kind of run."""
COUNTED = re.compile(r"(parts|packs)/[^/.][^/]*\.parquet")
"""Files that the catalog's views read, whether or not dqf made them."""


def surroundings(run: Run[Any]) -> list[Finding]:
    """Return the findings on everything around a run's data."""
    names = list(_names(run))
    return [
        _foreign(run, [name for name in names if not _is_own(run, name)]),
        _leftovers(run, [name for name in names if _is_leftover(name)]),
        _quarantine([name for name in names if name.startswith("quarantine/")]),
        *([_catalog(run), _statistics(run)] if isinstance(run, TraceRun) else []),
        _attempts(run),
        _processes(),
    ]


def counted_strangers(run: Run[Any]) -> list[str]:
    """Return the files that dqf did not make but the catalog counts."""
    return [name for name in _names(run) if COUNTED.fullmatch(name) and not _is_own(run, name)]


def _names(run: Run[Any]) -> Iterator[str]:
    """Yield the names of the run's files; in a bucket, those in the folders of dqf."""
    if not isinstance(run.storage, LocalStorage):
        for folder in FOLDERS:
            yield from (file.name for file in run.storage.files(folder))
        return
    for folder, _, names in os.walk(run.location):
        yield from (Path(folder, name).relative_to(run.location).as_posix() for name in names)


def _is_leftover(name: str) -> bool:
    return TEMPORARY.fullmatch(name.rpartition("/")[2]) is not None


def _is_own(run: Run[Any], name: str) -> bool:
    by_name = OF_ANY.fullmatch(name) or re.fullmatch(OF_KIND[type(run)], name)
    return by_name is not None or _is_leftover(name)


def _foreign(run: Run[Any], names: list[str]) -> Finding:
    counted = [name for name in names if COUNTED.fullmatch(name)]
    text = f"{len(names)} files that dqf did not make"
    if not names:
        return Finding(check="files", state=State.OK, found=text)
    text += ": " + ", ".join(sorted(names)[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
    if counted:
        return Finding(
            check="files",
            state=State.WRONG,
            found=f"{text}; {CATALOG} counts {len(counted)} of them",
            todo=f"`dqf doctor {run.argument} --repair` moves those to quarantine/",
        )
    todo = "dqf reads none of them: move them away"
    return Finding(check="files", state=State.NOTE, found=text, todo=todo)


def _leftovers(run: Run[Any], names: list[str]) -> Finding:
    packed = run.live().packed
    text = f"{len(packed)} parts that a pack took the place of, {len(names)} temporary files"
    if not packed and not names:
        return Finding(check="leftovers", state=State.OK, found=text)
    todo = f"they no longer count: {run.resume_hint()} removes them, temporary files after an hour"
    return Finding(check="leftovers", state=State.NOTE, found=text, todo=todo)


def _quarantine(names: list[str]) -> Finding:
    text = f"{len(names)} files were damaged and moved away"
    if not names:
        return Finding(check="quarantine", state=State.OK, found=text)
    todo = "nothing reads quarantine/: delete it when you no longer need it"
    return Finding(check="quarantine", state=State.NOTE, found=text, todo=todo)


def _catalog(run: TraceRun) -> Finding:
    if not isinstance(run.storage, LocalStorage):
        return Finding(check="catalog", state=State.OK, found="a run in a bucket has none")
    state = catalog_state(run)
    if state is None:
        todo = f"{run.resume_hint()} writes it"
        return Finding(check="catalog", state=State.NOTE, found=f"no {CATALOG}", todo=todo)
    if state.error:
        todo = f"`dqf doctor {run.argument} --repair` writes it again, unless a program has it open"
        return Finding(check="catalog", state=State.WRONG, found=state.error, todo=todo)
    if not state.is_anchored:
        todo = f"`dqf doctor {run.argument} --repair` writes it for this folder"
        found = f"the paths in {CATALOG} are of another folder: the run was moved"
        return Finding(check="catalog", state=State.NOTE, found=found, todo=todo)
    return Finding(check="catalog", state=State.OK, found=f"{CATALOG} opens")


def _statistics(run: TraceRun) -> Finding:
    damaged = damaged_statistics(run)
    if damaged:
        todo = f"delete {damaged[0]}: `dqf rank {run.argument}` makes it again"
        text = f"{', '.join(damaged)} cannot be read, or are of other scores than they are named"
        return Finding(check="statistics", state=State.WRONG, found=text, todo=todo)
    is_kept = kept_statistics(run, key_of(run, run.live())) is not None
    fine = "those kept are of" if is_kept else f"`dqf rank {run.argument}` makes those of"
    return Finding(check="statistics", state=State.OK, found=f"{fine} what is traced now")


def _attempts(run: Run[Any]) -> Finding:
    try:
        tried = attempts(run)
    except StoreError as error:
        found = f"a file of attempts/ cannot be read: {first_line(error)}"
        todo = "move it away: no score depends on it"
        return Finding(check="attempts", state=State.WRONG, found=found, todo=todo)
    odd = [text for attempt in tried if (text := _oddity(run, attempt))]
    found = "; ".join([f"{len(tried)} attempts", *odd[-SHOWN:]])
    if not odd:
        return Finding(check="attempts", state=State.OK, found=found)
    todo = "scores of other versions may differ: compare them before you rely on both"
    killed = any(attempt.outcome is None and not attempt.is_alive for attempt in tried)
    todo = f"{run.resume_hint()} continues where one was killed" if killed else todo
    return Finding(check="attempts", state=State.NOTE, found=found, todo=todo)


def _oddity(run: Run[Any], attempt: Attempt) -> str:
    """Return how an attempt differs from the manifest or ended abnormally; or ""."""
    odd = [
        f"had {name} {now}, the run was made with {then}"
        for name, then, now in changed_versions(run, attempt)
    ]
    if attempt.code_hash != run.manifest.code_hash:
        odd.append("had other code of dqf")
    if attempt.outcome is None and attempt.is_alive:
        odd.append(f"runs now as process {attempt.pid}")
    elif attempt.outcome is None and attempt.is_alive is None:
        odd.append(f"has not ended, on {attempt.host}, which is not this machine")
    elif attempt.outcome is None:
        odd.append(f"was killed: process {attempt.pid} is gone")
    return f"attempt {attempt.number} " + " and ".join(odd) if odd else ""


def _processes() -> Finding:
    left = orphans()
    text = f"{len(left)} processes of killed drivers on this machine"
    if not left:
        return Finding(check="processes", state=State.OK, found=text)
    pids = ", ".join(str(process.pid) for process in left[:SHOWN])
    todo = "they hold memory: --repair, or the next local Ray of dqf, ends them"
    return Finding(check="processes", state=State.NOTE, found=f"{text}: {pids}", todo=todo)
