"""Attempts: the processes that worked on a run, and how they ended. No score depends on them."""

import errno
import json
import logging
import os
import re
import socket
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

from pydantic import Field

from engine.files import refuse_links
from jobs.cluster.processes import started
from jobs.cluster.submission import JOBS_ADDRESS_VARIABLE, SUBMISSION_VARIABLE
from jobs.runs.provenance import code_hash, versions
from jobs.runs.run import PLAN, Run
from jobs.runs.storage.interface import StoredFile
from jobs.runs.storage.local import LocalStorage
from schemas.documents import is_mapping, parsed, read_json
from schemas.errors import StoreError
from schemas.printable import shown

RECORD = re.compile(r"attempts/\d{4}\.json")


class Outcome(StrEnum):
    """How an attempt ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """By a signal or `dqf trace stop`."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One process that drives a run."""

    number: int
    host: str
    pid: Annotated[int, Field(gt=0)]
    pid_started: float
    """Start time of the process, as by `started`, which distinguishes a later one of the same
    pid."""
    submission_id: str | None
    """Id of the Ray job that the process is, if any."""
    jobs_address: str | None
    started: str
    code_hash: str
    versions: dict[str, str]
    outcome: Outcome | None = None
    """None: the attempt has not ended, or was killed."""
    message: str = ""
    """Why it ended."""

    @property
    def is_alive(self) -> bool | None:
        """Whether the process is running; None if it is on another machine."""
        if self.outcome is not None:
            return False
        if self.host != socket.gethostname():
            return None
        return started(self.pid) == self.pid_started


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """The end of an attempt, as its own file says."""

    outcome: Outcome
    message: str


def begin(run: Run[object]) -> Attempt:
    """Record that this process drives the run from now on."""
    pid = os.getpid()
    pid_started = started(pid)
    assert pid_started is not None, "this process runs"
    for number in range(len(_records(run)), 10_000):
        attempt = Attempt(
            number=number,
            host=socket.gethostname(),
            pid=pid,
            pid_started=pid_started,
            submission_id=os.environ.get(SUBMISSION_VARIABLE),
            jobs_address=os.environ.get(JOBS_ADDRESS_VARIABLE),
            started=_now(),
            code_hash=code_hash(),
            versions=versions(),
        )
        fields = asdict(attempt)
        del fields["outcome"], fields["message"]
        if run.storage.create(f"attempts/{number:04d}.json", json.dumps(fields, indent=1).encode()):
            return attempt
    raise RuntimeError(f"run {run.location} has had 10,000 attempts")


def end(run: Run[object], attempt: Attempt, outcome: Outcome, message: str = "") -> None:
    """Record how an attempt ended, unless its run was deleted meanwhile."""
    if not run.storage.exists(PLAN):
        return
    fields = {"outcome": outcome, "message": message, "ended": _now()}
    name = f"attempts/{attempt.number:04d}.end.json"
    run.storage.create(name, json.dumps(fields, indent=1).encode())


def attempts(run: Run[object]) -> list[Attempt]:
    """Return the attempts at a run, oldest first."""
    names = {file.name for file in run.storage.files("attempts")}
    return [_read(run, name, names) for name in sorted(names) if RECORD.fullmatch(name)]


def has_finished(run: Run[object]) -> bool:
    """Return whether a process has worked a run through to its end."""
    with suppress(StoreError):  # a damaged record, which `dqf doctor` names
        return any(attempt.outcome is Outcome.FINISHED for attempt in attempts(run))
    return False


def last_begun(run: Run[object]) -> float:
    """Return the start of the last attempt in seconds by the storage's clock; 0 without any."""
    records = _records(run)
    return records[-1].modified if records else 0.0


def _records(run: Run[object]) -> list[StoredFile]:
    return [file for file in run.storage.files("attempts") if RECORD.fullmatch(file.name)]


def changed_versions(run: Run[object], attempt: Attempt) -> list[tuple[str, str, str]]:
    """Return the packages whose version differs: name, the run's version, the attempt's version."""
    known = run.manifest.versions
    return [
        (name, known[name], now)
        for name, now in attempt.versions.items()
        if known.get(name) not in (None, now)
    ]


def others_alive(run: Run[object], mine: Attempt) -> Sequence[Attempt]:
    """Return the other attempts that are running on this machine."""
    return [a for a in attempts(run) if a.number != mine.number and a.is_alive]


def _read(run: Run[object], name: str, names: set[str]) -> Attempt:
    number = int(name.removeprefix("attempts/").removesuffix(".json"))
    record = _known(_document(run, name), Attempt) | {"number": number}
    ended = name.replace(".json", ".end.json")
    if ended in names:
        record |= _known(_document(run, ended), _End)
    return parsed(Attempt, record, _named(run, name), error=StoreError)


def _named(run: Run[object], name: str) -> str:
    return f"{run.location}/{name} (no score depends on it: remove it if it is damaged)"


def _document(run: Run[object], name: str) -> Mapping[str, object]:
    document = read_json(run.storage.read(name), _named(run, name), error=StoreError)
    if not is_mapping(document):
        raise StoreError(f"{_named(run, name)} is {shown(document)}")
    return document


def _known(document: Mapping[str, object], kind: type) -> dict[str, object]:
    """Return the fields that this dqf has: a later one may write more."""
    return {field.name: document[field.name] for field in fields(kind) if field.name in document}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def log_path(run: Run[object], attempt: Attempt) -> Path | None:
    """Return the path of an attempt's log; a run in a bucket has none."""
    if not isinstance(run.storage, LocalStorage):
        return None
    return Path(run.location, "attempts", f"{attempt.number:04d}.log")


@contextmanager
def logged(run: Run[object], attempt: Attempt) -> Generator[None]:
    """Write this package's log to the attempt's log until exit, if that is possible."""
    logger = logging.getLogger("jobs")
    path = log_path(run, attempt)
    if path is None:
        yield
        return
    handler = _open_log(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # Libraries set up the root logger: what is for the log would be on stderr too.
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
        with suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A log whose disk may be full: a line is lost then, not the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, a name of logging's
        """Do nothing."""

    def _open(self) -> TextIOWrapper:
        """Return the file; OSError if there is a link or device in its place."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.baseFilename, flags, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file", self.baseFilename)
        return os.fdopen(descriptor, "a", encoding="utf-8")


def _open_log(path: Path) -> logging.Handler:
    try:
        refuse_links(path.parent, within=path.parents[1])
        return _LogFile(path, encoding="utf-8")
    except (OSError, StoreError):
        return logging.NullHandler()
