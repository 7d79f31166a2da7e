"""Storages: one suite on a file system and against S3 and Google servers; kills, full disks."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.runs.storage.interface import Storage
from jobs.runs.storage.local import LEFTOVER_AGE_S, LocalStorage
from jobs.runs.storage.opening import open_storage
from schemas.errors import StoreError
from tests.servers.bucket import BUCKET, CREDENTIALS, amazon, google, s3_server, serving

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def amazon_url() -> Iterator[str]:
    """Return the URL of an S3 server that has a bucket."""
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def google_url(amazon_url: str) -> Iterator[str]:
    """Return the URL of a server that shows the same bucket as Google would."""
    with serving(google) as url:
        yield url


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Return an environment with credentials and a cache folder, but no server."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture(params=["anonymous", "named"])
def local(request: pytest.FixtureRequest, tmp_path: Path, env: pytest.MonkeyPatch) -> LocalStorage:
    """Return a storage in a folder, with and without O_TMPFILE."""
    if request.param == "named":
        # A kernel that knows no O_TMPFILE sees O_DIRECTORY alone and answers EISDIR.
        env.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    return LocalStorage(location=str(tmp_path / "run"))


@pytest.fixture(params=["anonymous", "named", "s3", "gs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, env: pytest.MonkeyPatch) -> Storage:
    """Return an empty storage of each kind."""
    if request.param == "named":
        env.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    if request.param in ("anonymous", "named"):
        return open_storage(str(tmp_path / "run"))
    env.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("amazon_url"))
    env.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", google_account(request.getfixturevalue("google_url")))
    return open_storage(f"{request.param}://{BUCKET}/some users/{tmp_path.name}-{request.param}/")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the root of a file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def google_account(url: str) -> str:
    """Return an account for a server at `url` that checks none."""
    account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": ""}
    return json.dumps(account | {"private_key_id": ""})


def content_of(number: int) -> bytes:
    """Return 100 kB that belong to a number."""
    return hashlib.sha256(str(number).encode()).digest() * 3200


def test_first_content_stays(storage: Storage) -> None:
    assert not storage.exists("plan.json")
    assert storage.create("plan.json", b"first")
    assert not storage.create("plan.json", b"second")
    assert storage.exists("plan.json")
    assert storage.read("plan.json") == b"first"
    assert storage.create("deep/er/empty", b"")
    assert storage.read("deep/er/empty") == b""


@pytest.mark.parametrize("name", ["parts/a b+c%20d=é#1.parquet", "parts/c00000012.parquet"])
def test_any_name_round_trips(storage: Storage, name: str) -> None:
    storage.create(name, b"x")
    assert [file.name for file in storage.files("parts")] == [name]
    assert storage.read(name) == b"x"
    assert storage.local([name])[0].read_bytes() == b"x"
    storage.move(name, "quarantine/" + name)
    assert [file.name for file in storage.files("quarantine/parts")] == ["quarantine/" + name]


def test_missing_file(storage: Storage) -> None:
    for _ in range(2):
        assert not storage.exists("parts/none")
        assert storage.files("parts") == []
        storage.remove("parts/none")
        storage.move("parts/none", "quarantine/none")
        storage.remove_leftovers()
        with pytest.raises(FileNotFoundError, match="parts/none"):
            storage.read("parts/none")
        with pytest.raises(FileNotFoundError, match="parts/none"):
            storage.local(["parts/none"])
        assert not storage.exists("quarantine/none")
        storage.create("plan.json", b"now the storage itself exists")


def test_folder_lists_its_own_files_by_name(storage: Storage) -> None:
    began = time.time()
    for name in ("plan.json", "parts/b", "parts/a", "parts/sub/c", "parts_too/d"):
        storage.create(name, name.encode())
    assert [file.name for file in storage.files("parts")] == ["parts/a", "parts/b"]
    assert [file.name for file in storage.files("")] == ["plan.json"]
    [listed] = storage.files("parts/sub")
    assert (listed.name, listed.size) == ("parts/sub/c", len("parts/sub/c"))
    assert abs(listed.modified - began) < 60
    assert not storage.exists("parts")


def test_a_removed_name_can_be_created_again(storage: Storage) -> None:
    storage.create("claim", b"1")
    storage.remove("claim")
    assert not storage.exists("claim")
    assert storage.create("claim", b"2")
    assert storage.read("claim") == b"2"


def test_one_of_many_writers_wins(storage: Storage) -> None:
    for round_number in range(5):
        start = threading.Barrier(8)

        def write(writer: int, name: str, start: threading.Barrier) -> bool:
            start.wait()
            return storage.create(name, bytes([writer]) * 50_000)

        name = f"parts/{round_number}"
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8), [name] * 8, [start] * 8))
        assert sum(won) == 1
        assert storage.read(name) == bytes([won.index(True)]) * 50_000


def test_one_of_many_movers_moves_and_none_fails(storage: Storage) -> None:
    storage.create("parts/a", b"corrupt")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(storage.move, ["parts/a"] * 4, ["quarantine/a"] * 4))
    assert not storage.exists("parts/a")
    assert storage.read("quarantine/a") == b"corrupt"


@pytest.mark.parametrize("count", [3, 40])
def test_local_paths_keep_the_order(storage: Storage, count: int) -> None:
    names = [f"{'ab'[i % 2]}/{count - i:02d}.bin" for i in range(count)] + ["plan.json"]
    for name in names:
        storage.create(name, name.encode())
    paths = storage.local(names)
    assert [path.read_text() for path in paths] == names
    assert [path.name for path in paths] == [name.rpartition("/")[2] for name in names]
    inodes = [path.stat().st_ino for path in paths]
    assert [path.stat().st_ino for path in storage.local(names)] == inodes
    storage.remove(names[1])
    with pytest.raises(FileNotFoundError, match=names[1]):
        storage.local(names)


def test_local_path_holds_the_content_after_a_quarantine(storage: Storage) -> None:
    storage.create("parts/a", b"corrupt!")
    assert storage.local(["parts/a"])[0].read_bytes() == b"corrupt!"
    storage.move("parts/a", "quarantine/a")
    assert storage.create("parts/a", b"complete")
    assert storage.local(["parts/a", "quarantine/a"])[0].read_bytes() == b"complete"
    assert storage.local(["quarantine/a"])[0].read_bytes() == b"corrupt!"


def test_location_opens_the_same_storage(storage: Storage) -> None:
    storage.create("parts/a", b"1")
    again = open_storage(storage.location)
    assert again.location == storage.location
    assert again.read("parts/a") == b"1"


def test_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("runs/../one").location == str(tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    "location",
    ["s3://", "s3:/runs/one", "s3:///one", "S3://runs", "s4://runs/one", "https://host/runs",
     "s3://runs//one", "s3://runs/../one", "gs://runs/one?x=1"],
)  # fmt: skip
def test_malformed_url_is_refused(location: str) -> None:
    with pytest.raises(StoreError, match=r"s3://BUCKET/PREFIX"):
        open_storage(location)


def test_secret_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(StoreError) as refused:
        open_storage("s3://AKIDTEST:SECRET@runs/one")
    assert "SECRET" not in str(refused.value)


WRITER = """
import hashlib, os, sys
from jobs.runs.storage.opening import open_storage
if sys.argv[3] == "named":
    os.O_TMPFILE = os.O_DIRECTORY
storage, number = open_storage(sys.argv[1]), int(sys.argv[2])
while True:
    content = hashlib.sha256(str(number).encode()).digest() * 3200
    storage.create(f"parts/{number}", content)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("kind", ["anonymous", "named"])
def test_killed_writer_leaves_whole_files(tmp_path: Path, kind: str) -> None:
    storage = LocalStorage(location=str(tmp_path / "run"))
    for kill in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, storage.location, str(kill * 10**6), kind],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        assert int(writer.stdout.readline()) == kill * 10**6
        time.sleep(0.01 + 0.013 * kill)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    files = storage.files("parts")
    assert len({int(file.name.split("/")[1]) // 10**6 for file in files}) == 5
    for file in files:
        assert storage.read(file.name) == content_of(int(file.name.split("/")[1]))
    if kind == "anonymous":
        assert len(os.listdir(tmp_path / "run" / "parts")) == len(files)


def test_full_disk_keeps_earlier_files_and_leaves_nothing(
    small_disk: Path, local: LocalStorage
) -> None:
    storage = LocalStorage(location=str(small_disk / "run"))
    for number in range(5):
        assert storage.create(f"parts/{number}", content_of(number))
    with pytest.raises(StoreError, match=r"run/parts/big: No space left on device"):
        storage.create("parts/big", bytes(700_000))
    assert sorted(os.listdir(small_disk / "run" / "parts")) == list("01234")
    for number in range(5):
        assert storage.read(f"parts/{number}") == content_of(number)
    assert storage.create("parts/small", b"fits")


def test_read_only_disk_can_be_read(small_disk: Path, local: LocalStorage) -> None:
    storage = LocalStorage(location=str(small_disk))
    storage.create("parts/a", b"1")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for change in (
        lambda: storage.create("parts/b", b"2"),
        lambda: storage.create("other/b", b"2"),
        lambda: storage.remove("parts/a"),
        lambda: storage.move("parts/a", "parts/b"),
    ):
        with pytest.raises(StoreError, match=r"disk/.*: Read-only file system"):
            change()
    storage.remove_leftovers()
    assert storage.read("parts/a") == b"1"
    assert [file.name for file in storage.files("parts")] == ["parts/a"]


@pytest.mark.parametrize("name", ["plan.json/a", "plan.json/a/b"])
def test_file_in_a_folders_place(local: LocalStorage, name: str) -> None:
    local.create("plan.json", b"1")
    with pytest.raises(StoreError, match=f"{name}: Not a directory"):
        local.create(name, b"2")
    assert not local.exists(name)
    assert local.read("plan.json") == b"1"


def test_a_folder_may_lie_deep(local: LocalStorage) -> None:
    name = "x/" * 1200 + "a"
    assert local.create("stays", b"")
    assert local.create(name, b"1")
    assert local.read(name) == b"1"
    local.remove(name)
    os.removedirs(Path(local.location, name).parent)  # pytest's own way recurses


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "broken link"])
def test_what_is_no_file_is_not_taken_for_another_writers(local: LocalStorage, kind: str) -> None:
    path = Path(local.location, "parts", "a")
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    with pytest.raises(StoreError, match="parts/a: it is not a regular file: remove it"):
        local.create("parts/a", b"x")


def test_files_are_for_all_to_read(local: LocalStorage) -> None:
    umask = os.umask(0o077)
    try:
        local.create("plan.json", b"1")
    finally:
        os.umask(umask)
    assert Path(local.location, "plan.json").stat().st_mode & 0o777 == 0o644


def test_leftovers_go_by_age(local: LocalStorage) -> None:
    local.create("parts/c1", b"1")
    parts = Path(local.location, "parts")
    now = (parts / "c1").stat().st_mtime
    ages = {"old": LEFTOVER_AGE_S + 60, "young": LEFTOVER_AGE_S - 60, "ahead": 60 - LEFTOVER_AGE_S}
    ages["future"] = -LEFTOVER_AGE_S - 60
    for name, age in ages.items():
        file = parts / f".{name}.abcd_123"
        file.write_bytes(b"half")
        os.utime(file, (now - age, now - age))
    for foreign in (parts / ".nfs0000000a", parts / "c1"):
        foreign.touch()
        os.utime(foreign, (0, 0))
    assert [file.name for file in local.files("parts")] == ["parts/c1"]
    local.remove_leftovers()
    left = {".young.abcd_123", ".ahead.abcd_123", ".nfs0000000a", "c1"}
    assert set(os.listdir(parts)) == left
    assert os.listdir(local.location) == ["parts"]


def every_method(storage: Storage) -> list[Callable[[], object]]:
    """Return a call of each method that asks the bucket."""
    return [
        lambda: storage.create("a", b"1"),
        lambda: storage.read("a"),
        lambda: storage.exists("a"),
        lambda: storage.files(""),
        lambda: storage.remove("a"),
        lambda: storage.move("a", "b"),
        lambda: storage.local(["a"]),
    ]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_missing_bucket(
    amazon_url: str, google_url: str, env: pytest.MonkeyPatch, scheme: str
) -> None:
    env.setenv("AWS_ENDPOINT_URL", amazon_url)
    env.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", google_account(google_url))
    for call in every_method(open_storage(f"{scheme}://no-such-bucket/one")):
        with pytest.raises(StoreError, match=f"{scheme}://no-such-bucket/one: there is no such"):
            call()


def test_refused_access_shows_no_key(env: pytest.MonkeyPatch) -> None:
    def refuse(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("403 Forbidden", [("Content-Type", "application/xml")])
        text = "<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIDTEST</AWSAccessKeyId>"
        return [f"{text}</Error>".encode()] if environ["REQUEST_METHOD"] != "HEAD" else []

    with serving(refuse) as url:
        env.setenv("AWS_ENDPOINT_URL", url)
        for call in every_method(open_storage("s3://runs/one")):
            with pytest.raises(StoreError, match=r"s3://runs/one: access is refused") as refused:
                call()
            assert "AKIDTEST" not in str(refused.value)
            assert "\n" not in str(refused.value)


def test_conflict_without_a_file_is_tried_again(
    amazon_url: str, env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    conflicts = 2

    def conflicting(environ: dict[str, Any], start_response: Any) -> Any:
        nonlocal conflicts
        if environ["REQUEST_METHOD"] != "PUT" or not conflicts:
            return amazon(environ, start_response)
        conflicts -= 1
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("409 Conflict", [("Content-Type", "application/xml")])
        return [b"<Error><Code>ConditionalRequestConflict</Code></Error>"]

    with serving(conflicting) as url:
        env.setenv("AWS_ENDPOINT_URL", url)
        storage = open_storage(f"s3://{BUCKET}/{tmp_path.name}")
        assert storage.create("a", b"1")
        assert conflicts == 0
        assert storage.read("a") == b"1"


def test_large_file_round_trips(amazon_url: str, env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env.setenv("AWS_ENDPOINT_URL", amazon_url)
    storage = open_storage(f"s3://{BUCKET}/{tmp_path.name}")
    content = os.urandom(12_000_000)
    assert storage.create("units.parquet", content)
    assert not storage.create("units.parquet", b"")
    assert storage.local(["units.parquet"])[0].read_bytes() == content


def test_long_listing_is_whole(amazon_url: str, env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env.setenv("AWS_ENDPOINT_URL", amazon_url)
    env.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    storage = open_storage(f"s3://{BUCKET}/{tmp_path.name}")
    names = [f"parts/c{number:08d}" for number in range(35)]
    for name in names:
        storage.create(name, b"")
    assert [file.name for file in storage.files("parts")] == names
    assert len(storage.local(names)) == 35


def test_closed_port_is_reported(env: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        storage = open_storage("s3://runs/one")
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"^cannot use s3://runs/one: http://127[^\n]*$"):
            storage.create("a", b"1")
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_silent_server_is_reported(env: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        env.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        storage = open_storage("s3://runs/one")

        def fail(call: Callable[[], object]) -> float:
            began = time.monotonic()
            with pytest.raises(StoreError, match=r"^cannot use s3://runs/one: [^\n]*$"):
                call()
            return time.monotonic() - began

        with ThreadPoolExecutor(8) as pool:
            assert max(pool.map(fail, every_method(storage))) < 30
