"""The archive that a job on a cluster runs in: dqf's code and a few files of the user's."""

import importlib.util
import io
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from engine.files import is_file
from engine.model.registry import EMBEDDED
from jobs.runs.provenance import PACKAGES
from schemas.errors import ClusterUnavailable

DATA = ("jobs/input/probe_sets", "jobs/report/page")
"""Folders of data that always go along: captions, the report's page."""
REFERENCE_MODEL = tuple(
    f"engine/reference/{name}{end}" for name in EMBEDDED for end in ("", "-statistics")
)
DATA_SUFFIXES = frozenset({".css", ".csv", ".html", ".js", ".json", ".safetensors"})
"""Suffixes of shipped data; of a package's folders only `*.py` is shipped."""
MAX_BYTES = 100 * 2**20
"""Largest request that Ray's dashboard accepts (ray 2.60, DASHBOARD_CLIENT_MAX_SIZE)."""
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def job_archive(files: Mapping[str, bytes], *, ships_reference_model: bool) -> bytes:
    """Return a zip file of the imported dqf's code and `files`; equal content gives equal bytes.

    ClusterUnavailable: it is larger than a cluster accepts.
    """
    code = code_files(ships_reference_model=ships_reference_model)
    assert not any(_is_outside(name) or name in code for name in files)
    contents = {name: path.read_bytes() for name, path in code.items()} | dict(files)
    archive = _zipped(contents)
    if len(archive) > MAX_BYTES:
        largest = max(contents, key=lambda name: len(contents[name]))
        raise ClusterUnavailable(
            f"the job's files are {len(archive) / 2**20:.0f} MiB, a cluster accepts "
            f"{MAX_BYTES / 2**20:.0f} MiB: {largest} is the largest, put it into a shared folder"
        )
    return archive


def code_files(*, ships_reference_model: bool) -> dict[str, Path]:
    """Return the files that dqf needs to run, by their names in the archive."""
    folders = {name: _folder(name) for name in PACKAGES}
    files = {f"{name}/{rest}": path for name, f in folders.items() for rest, path in _files(f)}
    return {
        name: path
        for name, path in files.items()
        if path.suffix == ".py" or _is_data(name, ships_reference_model=ships_reference_model)
    }


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if is_file(path):
            yield path.relative_to(folder).as_posix(), path


def _is_data(name: str, *, ships_reference_model: bool) -> bool:
    folders = (*DATA, *REFERENCE_MODEL) if ships_reference_model else DATA
    is_inside = any(name.startswith(f"{folder}/") for folder in folders)
    return is_inside and PurePosixPath(name).suffix in DATA_SUFFIXES


def _is_outside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name in sorted(contents):
            # One date for all: Ray names a package by the hash of the archive.
            info = ZipInfo(name, ZIP_EPOCH)
            info.external_attr = 0o644 << 16
            # Weights do not shrink.
            info.compress_type = ZIP_STORED if name.endswith(".safetensors") else ZIP_DEFLATED
            archive.writestr(info, contents[name])
    return buffer.getvalue()
