"""Opening a run of any kind, and making one unless a run of the same plan exists."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from engine.files import similar_name, try_to_make
from jobs.runs.provenance import Manifest, manifest_of
from jobs.runs.run import PLAN, Run
from jobs.runs.storage.local import LocalStorage
from jobs.runs.storage.opening import open_storage
from schemas.errors import StoreError

R = TypeVar("R", bound=Run[object])


def open_as(kind: type[R], location: str | Path) -> R:
    """Return the run of a kind at `location`.

    StoreError: there is none, it is of another kind, its plan is damaged, or its tables are of
    another version of dqf.
    """
    run = kind(open_storage(location))
    try:
        version = run.version
    except FileNotFoundError:
        similar = similar_name(location, holding=PLAN)
        meant = f", did you mean {similar}" if similar else ""
        raise StoreError(
            f"no {kind.noun} at {location}{meant}: `{kind.made_by}` makes one"
        ) from None
    if version is None:
        raise StoreError(
            f"{location} is a run of another kind: this needs one that `{kind.made_by}` makes"
        )
    if version != kind.reads_version:
        made_it = f"made it (commit {run.git_commit})" if run.git_commit else "made it"
        raise StoreError(
            f"{kind.noun} {location} has tables of version {version}, this dqf reads "
            f"{kind.reads_version}: read it with the dqf that {made_it}, or make it again under "
            f"another {kind.named_by}"
        )
    return run


def create_as(
    kind: type[R], location: str | Path, plan: BaseModel, manifest: Manifest, **fields: object
) -> R:
    """Make a run, unless one of the same plan exists, and return it with all files.

    `fields` go into the plan's document. StoreError: another run or file exists there, the model or
    the scorer has changed, or it cannot be written.
    """
    check_place(kind, location)
    storage = open_storage(location)
    document = {kind.version_field: kind.reads_version, "plan": plan, "manifest": manifest}
    storage.create(PLAN, to_json(document | fields, indent=1) + b"\n")
    run = open_as(kind, location)
    check_same(run, plan)
    check_models(run, manifest)
    run.complete()
    return run


def check_place(kind: type[Run[object]], location: str | Path) -> None:
    """Raise StoreError if no run of a kind is, or can be made, at a location."""
    storage = open_storage(location)
    if isinstance(storage, LocalStorage):
        try:
            try_to_make(Path(storage.location))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"cannot use {storage.location}: {reason}") from error
    if not storage.exists(PLAN) and storage.holds_anything():
        raise StoreError(
            f"{location} exists and holds no {kind.noun}: choose another {kind.named_by}"
        )


def resumed(run: R) -> R:
    """Return a run to resume; StoreError if its model or scorer has changed."""
    check_models(run, manifest_of(model=run.plan.model, scorer=run.plan.scorer))
    return run


def check_same(run: Run[object], plan: BaseModel) -> None:
    """Raise StoreError if a run was made with another plan."""
    old, new = run.plan.model_dump(), plan.model_dump()
    differing = [name for name in new if new[name] != old[name]]
    if differing:
        raise StoreError(
            f"{run.noun} {run.location} was made with another {' and '.join(differing)}: choose "
            f"another {run.named_by}, or give the same options to resume it"
        )


def check_models(run: Run[object], now: Manifest) -> None:
    """Raise StoreError if a run was made with another model or scorer."""
    for name in ("model", "scorer"):
        if getattr(run.manifest, f"{name}_hash") != getattr(now, f"{name}_hash"):
            raise StoreError(
                f"{run.noun} {run.location} was made with another {name}_hash: the {name} "
                f"{getattr(run.plan, name)!r} has changed since; choose another {run.named_by}"
            )
