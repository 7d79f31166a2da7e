"""The code that computes scores: its hash, its versions and its commit, for the run's manifest."""

import hashlib
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from engine.model import registry

PACKAGES = ("dqf", "cli", "jobs", "engine", "schemas")
"""The packages that dqf consists of, next to one another."""
DEPENDENCIES = ("dqf", "torch", "diffusers", "transformers", "open_clip_torch", "ray")
"""Distributions whose versions are recorded."""
ROOT = Path(__file__).parents[2]


@cache
def code_hash() -> str:
    """Return the hash of dqf's own modules as they were imported here."""
    digest = hashlib.blake2b(digest_size=16)
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Return the versions of dqf and of the packages that its numbers depend on."""
    return {name: version(name) for name in DEPENDENCIES}


def git_commit() -> str:
    """Return the commit of the code, or "" outside a checkout of it."""
    # Installed inside somebody else's checkout, its files are not part of HEAD: git fails.
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD", "HEAD:./jobs/runs/provenance.py"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.split("\n")[0] if result.returncode == 0 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Provenance of a run's numbers, besides its plan."""

    model_hash: str
    scorer_hash: str
    versions: dict[str, str]
    code_hash: str
    git_commit: str
    created: str


def manifest_of(*, model: str, scorer: str) -> Manifest:
    """Return the provenance of a run that is made now."""
    return Manifest(
        model_hash=registry.model_hash(model),
        scorer_hash=registry.scorer_hash(scorer),
        versions=versions(),
        code_hash=code_hash(),
        git_commit=git_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
