"""What a manifest says of the code."""

import subprocess
from pathlib import Path

import pytest

from jobs.runs import provenance as code


def test_the_commit_is_of_the_checkout_that_holds_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "somebody else's")
    monkeypatch.setattr(code, "ROOT", tmp_path / "site-packages")
    (tmp_path / "site-packages" / "jobs" / "runs").mkdir(parents=True)
    (tmp_path / "site-packages" / "jobs" / "runs" / "provenance.py").touch()
    assert code.git_commit() == ""
    git("add", ".")
    git("commit", "-q", "-m", "dqf")
    assert code.git_commit() == git("rev-parse", "HEAD")
