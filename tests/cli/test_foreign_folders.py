"""A run from someone else is data: nothing outside it is written, asked for, or waited for."""

import io
import json
import logging
import os
import shutil
import socket
import stat
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jobs.pool import attempts
from jobs.runs.kept_images import LABELS, CorruptImage, image_name, picked_units, read_images
from jobs.runs.trace_run import open_run
from schemas.errors import StoreError
from tests.cli.test_commands import dqf
from tests.jobs.query.test_run_paths import traced
from tests.made_up.small_run import commit_scores

SECRET = b"not dqf's"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    location = tmp_path_factory.mktemp("whole") / "r"
    traced(location)
    return location


@pytest.fixture
def work(whole: Path, tmp_path: Path) -> Path:
    """Return a working directory with a run and, beside it, what is not its own."""
    for name in ("r", "other"):
        shutil.copytree(whole, tmp_path / "runs" / name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(SECRET)
    return tmp_path


def targets(work: Path, suffix: str) -> dict[str, Path]:
    """Return paths that no output may go to, by what stands there."""
    found = {
        name: work / f"{name}{suffix}" for name in ("pipe", "link", "folder", "device", "dangling")
    }
    os.mkfifo(found["pipe"])
    found["link"].symlink_to(work / "mine" / "file")
    found["dangling"].symlink_to(work / "mine" / "none")
    found["device"].symlink_to("/dev/null")
    found["folder"].mkdir()
    run = work / "runs" / "other"
    return {**found, "table": run / f"captions{suffix}", "part": run / "parts" / f"a{suffix}"}


@pytest.mark.parametrize(
    ("command", "suffix"),
    [
        (("query", "r", "SELECT * FROM captions", "--out"), ".parquet"),
        (("query", "r", "SELECT * FROM captions", "--out"), ".csv"),
        (("report", "r", "--out"), ".html"),
        (("plot", "r", "--figure", "ranking", "--out"), ".png"),
        (("generate", "a cat", "--out"), ".png"),
    ],
)
def test_output_replaces_regular_files_alone(
    command: tuple[str, ...], suffix: str, work: Path
) -> None:
    for what, path in targets(work, suffix).items():
        before = path.lstat() if os.path.lexists(path) else None
        done = dqf(*command, str(path), cwd=work)
        assert done.returncode == 2, (what, done.stdout, done.stderr)
        (sentence,) = done.stderr.removeprefix("opening emoji-sd\n").splitlines()
        assert sentence.startswith("dqf: ")
        after = path.lstat() if os.path.lexists(path) else None
        assert (before and (before.st_ino, before.st_mode)) == (
            after and (after.st_ino, after.st_mode)
        ), what
    for device in ("/dev/null", "/dev/full", "/proc/none/a.csv", "/no/such/../folder\0"):
        if "\0" not in device and command[0] == "query":
            assert dqf(*command, device, cwd=work).returncode == 2
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (work / "mine" / "file").read_bytes() == SECRET
    assert os.listdir(work / "mine") == ["file"]


def test_a_regular_file_is_replaced_whole(work: Path) -> None:
    out = work / "a.csv"
    out.write_text("old")
    assert dqf("query", "r", "SELECT 1 AS one", "--out", "a.csv", cwd=work).returncode == 0
    assert out.read_text() == "one\n1\n"
    assert dqf("query", "r", "SELECT error('no')", "--out", "a.csv", cwd=work).returncode == 2
    assert out.read_text() == "one\n1\n"
    assert [path.name for path in work.iterdir() if path.name.startswith(".")] == []


def test_links_in_a_run_lead_nowhere(work: Path) -> None:
    run, mine = work / "runs" / "r", work / "mine"
    shutil.rmtree(run / "statistics", ignore_errors=True)
    (run / "statistics").symlink_to(mine)
    old = mine / "ranking.n000000000000001-0123456789abcdef.parquet"
    old.write_bytes(SECRET)
    (run / "report.html").symlink_to(mine / "file")
    (run / ".report.html.part").symlink_to(mine / "file")
    (run / "attempts").mkdir(exist_ok=True)
    (run / "attempts" / "0000.log").symlink_to(mine / "file")
    (run / "quarantine").symlink_to(mine)
    assert dqf("rank", "r", cwd=work).returncode == 0
    assert dqf("report", "r", cwd=work).returncode == 2
    opened = open_run(run)
    attempt = attempts.begin(opened)
    with attempts.logged(opened, attempt):
        logging.getLogger("jobs").info("a line")
    with pytest.raises(StoreError, match="link"):
        opened.quarantine("captions.parquet")
    with pytest.raises(StoreError, match="link"):
        opened.storage.create("statistics/a", b"")
    assert (mine / "file").read_bytes() == SECRET
    assert sorted(os.listdir(mine)) == ["file", old.name]


def test_a_pipe_as_a_log_is_not_waited_for(work: Path) -> None:
    run = open_run(work / "runs" / "r")
    attempt = attempts.begin(run)
    os.mkfifo(Path(run.location, "attempts", "0000.log"))
    with attempts.logged(run, attempt):
        logging.getLogger("jobs").info("a line")


@pytest.mark.parametrize("fields", [{"pid": -1}, {"pid": 0}, {"number": -1}, {"number": 7}, {}])
def test_a_record_that_no_attempt_writes_is_one_sentence(
    fields: dict[str, int], work: Path
) -> None:
    run = open_run(work / "runs" / "r")
    attempt = attempts.begin(run)
    folder = Path(run.location, "attempts")
    record = json.loads((folder / "0000.json").read_text())
    (folder / "0000.json").unlink()
    (folder / "0003.json").write_text(json.dumps(record | fields))
    (folder / "0003.log").write_text("a line\n")
    for command in ("status", "logs"):
        done = dqf("trace", command, "r", cwd=work)
        assert done.returncode == (2 if "pid" in fields else 0), done.stderr
        assert ("attempts/0003.json" in done.stderr) == ("pid" in fields)
    assert "pid" in fields or done.stdout == "a line\n"
    assert attempt.number == 0


@pytest.mark.parametrize("name", ["0000.json", "0000.end.json"])
@pytest.mark.parametrize("content", ["x", "[3]"])
def test_a_record_of_an_attempt_that_is_none_may_be_removed(
    name: str, content: str, work: Path
) -> None:
    run = open_run(work / "runs" / "r")
    attempts.end(run, attempts.begin(run), attempts.Outcome.FINISHED)
    Path(run.location, "attempts", name).write_text(content)
    with pytest.raises(StoreError, match=f"{name} .*remove it if it is damaged. is "):
        attempts.attempts(run)


def test_a_run_that_is_deleted_stays_deleted(work: Path) -> None:
    run = open_run(work / "runs" / "r")
    attempt = attempts.begin(run)
    _ = run.plan, run.unit_ids
    shutil.rmtree(run.location)
    with pytest.raises(StoreError, match="is gone"):
        commit_scores(run, 0)
    attempts.end(run, attempt, attempts.Outcome.FAILED, "gone")
    assert not Path(run.location).exists()


@pytest.mark.parametrize("command", ["logs", "stop"])
def test_no_address_of_a_folder_is_asked(
    command: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        asked: list[bytes] = []

        def listen() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    asked.append(connection.recv(10_000))
            except OSError:
                return

        listener = Thread(target=listen)
        listener.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        folder = work / "runs" / "r" / "attempts"
        folder.mkdir(exist_ok=True)
        record = {
            "number": 0, "host": "elsewhere", "pid": 1, "pid_started": 1.0, "started": "now",
            "submission_id": "dqf-r-1", "jobs_address": address, "code_hash": "", "versions": {},
            "of a later dqf": {"a": 1},
        }  # fmt: skip
        (folder / "0000.json").write_text(json.dumps(record))
        done = dqf("trace", command, "r", cwd=work)
        listener.join()
    assert done.returncode == 2
    assert f"submitted to {address}: give that as --address" in done.stderr
    assert not asked
    # A field that a later dqf writes, or a damaged record, hides no other run.
    (work / "runs" / "other" / "attempts").mkdir(exist_ok=True)
    (work / "runs" / "other" / "attempts" / "0000.json").write_text("[" * 1000)
    listed = dqf("trace", "list", "runs", cwd=work)
    assert listed.returncode == 0, listed.stderr
    assert "unreadable" in listed.stdout


def png(size: tuple[int, int], labels: object) -> bytes:
    text, file = PngInfo(), io.BytesIO()
    text.add_text(LABELS, labels if isinstance(labels, str) else json.dumps(labels), zip=True)
    Image.new("1", size).save(file, format="PNG", pnginfo=text)
    return file.getvalue()


def test_odd_images_are_left_out(work: Path) -> None:
    run = open_run(work / "runs" / "r")
    unit_id = next(iter(picked_units(run)))
    image = {
        "role": "clean", "score": 0.5, "component": None, "token": None, "step_start": None,
        "step_stop": None,
    }  # fmt: skip
    good = {
        "unit_id": unit_id, "caption": "a cat", "subject": "cat", "attribute": "object",
        "part": "text-encoder", "seed": 0, "draw": 0, "measure": "target",
        "intervention": "restore", "images": [image],
    }  # fmt: skip
    assert read_images(png((16, 16), good), unit_id).caption == "a cat"
    odd = [
        png((20_000, 20_000), good),
        png((16, 16), {**good, "images": []}),
        png((16, 16), {**good, "images": [image] * 1000}),
        png((16, 16), {**good, "intervention": "dance"}),
        png((16, 16), {**good, "images": [{**image, "score": "high"}]}),
        png((16, 16), {**good, "images": [{**image, "role": {"a": 1}}]}),
        png((16, 16), {**good, "caption": ["a cat"]}),
        png((16, 16), [good]),
        png((16, 16), "[" * 10_000),
        png((16, 16), '{"score": 1e999}'),
        png((16, 16), " " * 60_000_000),
        png((16, 16), good)[:-20],
        b"",
    ]
    for content in odd:
        with pytest.raises(CorruptImage):
            read_images(content, unit_id)
    run.storage.create(image_name(unit_id), odd[3])
    assert dqf("report", "r", cwd=work).returncode == 0
    assert image_name(unit_id) in dqf("doctor", "r", cwd=work).stdout


def test_nothing_of_a_run_reaches_the_terminal_raw(work: Path) -> None:
    escape = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e"
    path = work / "runs" / "r" / "plan.json"
    path.write_text(path.read_text().replace('"a cat"', json.dumps(f"a cat{escape}")))
    sql = f"SELECT 'a{escape}' AS \"b{escape}\""
    for form in ("table", "markdown"):
        done = dqf("query", "other", sql, "--format", form, cwd=work)
        assert done.returncode == 0, done.stderr
        assert not set("\x1b\x07\x9b\u202e") & set(done.stdout + done.stderr)
    log = work / "runs" / "other" / "attempts"
    log.mkdir(exist_ok=True)
    run = open_run(work / "runs" / "other")
    attempt = attempts.begin(run)
    Path(run.location, "attempts", "0000.log").write_text(f"a line{escape}\n", encoding="utf-8")
    attempts.end(run, attempt, attempts.Outcome.FAILED, f"why{escape}")
    for command in (("trace", "logs", "other"), ("trace", "status", "other"), ("rank", "r")):
        done = dqf(*command, cwd=work)
        assert not set("\x1b\x07\x9b\u202e") & set(done.stdout + done.stderr), command


def test_a_folder_of_an_impossible_name_is_not_listed(work: Path) -> None:
    listed = dqf("trace", "list", "x" * 300, cwd=work)
    assert (listed.returncode, listed.stdout) == (2, "")
    assert listed.stderr == f"dqf: cannot list {'x' * 300}: File name too long\n"
