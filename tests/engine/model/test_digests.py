"""A large file's hash is computed once, and again when the file is another."""

import hashlib
import os
from pathlib import Path

import pytest

from engine.model import digests
from engine.model.digests import file_digest


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Keep hashes in a folder of the test's; return the files that are read, as they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "KEPT_FROM", 4)
    files: list[Path] = []
    computed = digests._computed_digest

    def noting(file: Path) -> bytes:
        files.append(file)
        return computed(file)

    monkeypatch.setattr(digests, "_computed_digest", noting)
    return files


def aged(file: Path, content: bytes, *, age_s: float, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file as if so many seconds ago: the clock is moved, as ctime cannot be."""
    file.write_bytes(content)
    now = file.stat().st_ctime_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: now + int(age_s * 1e9))
    return file


def test_a_settled_file_is_read_once(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = aged(tmp_path / "w.safetensors", b"weights", age_s=60, monkeypatch=monkeypatch)
    expected = hashlib.blake2b(b"weights").digest()
    assert file_digest(file) == file_digest(file) == expected
    assert read == [file]
    aged(file, b"WEIGHTS", age_s=60, monkeypatch=monkeypatch)
    os.utime(file, ns=(1, 1))  # a copy that keeps an old time
    assert file_digest(file) == hashlib.blake2b(b"WEIGHTS").digest()
    assert read == [file, file]


def test_a_file_just_written_and_a_small_one_are_read_again(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = aged(tmp_path / "w.safetensors", b"weights", age_s=0.1, monkeypatch=monkeypatch)
    file_digest(fresh)
    file_digest(fresh)
    small = aged(tmp_path / "c.json", b"{}", age_s=60, monkeypatch=monkeypatch)
    file_digest(small)
    file_digest(small)
    assert read == [fresh, fresh, small, small]
