"""Jobs on a real Ray head that wants a token: submitted, followed, listed, stopped, refused."""

import io
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit
from zipfile import ZipFile

import pytest
import requests

from jobs.cluster import submission
from jobs.cluster.archive import MAX_BYTES, code_files, job_archive
from jobs.cluster.submission import Job, is_job_address
from jobs.runs.provenance import PACKAGES
from schemas.errors import ClusterUnavailable
from tests.cli.test_commands import dqf
from tests.servers.ray_head import ROOT, Head, Wire, free_ports, ray_head

CONCEPTS = "concept,replacement\napple,castle\n"
SECRET = "not-a-real-secret-key-of-a-bucket"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.fixture
def wire(head: Head) -> Iterator[Wire]:
    port = urlsplit(head.address).port
    assert port
    opened = Wire(port)
    yield opened
    opened.close()


def followed(address: str, submission_id: str) -> list[str]:
    return list(submission.follow(address, submission_id))


def submit_shell(address: str, entrypoint: str, *, text: str = "shipped\n") -> str:
    archive = job_archive({"a.txt": text.encode()}, ships_reference_model=False)
    return submission.submit_command(address, entrypoint, run="r", archive=archive, metadata={})


def submit(head: Head, *arguments: str, run: str, address: str | None = None) -> str:
    return head.call(
        submission.submit, address or head.address, arguments=arguments, run=run,
        files={}, ships_reference_model=False,
    )  # fmt: skip


def job(head: Head, submission_id: str) -> Job:
    return head.call(submission.job, head.address, submission_id)


def test_a_command_runs_and_a_failing_ones_sentence_and_exit_code_arrive(head: Head) -> None:
    good = submit(head, "--version", run="s3://bucket/runs/my run/")
    assert good.startswith("dqf-my-run-")
    bad = submit(head, "rank", "no where", run="/shared/runs/art")
    good_lines, bad_lines = (head.call(followed, head.address, each) for each in (good, bad))
    assert any(line.startswith("dqf 0.") for line in good_lines)
    assert any(line.startswith("dqf: no run at runs/no where") for line in bad_lines)
    assert "\n".join(bad_lines) == head.call(submission.logs, head.address, bad).rstrip("\n")
    ended = job(head, bad)
    assert (ended.status, ended.exit_code, ended.command) == ("FAILED", 2, "rank 'no where'")
    assert (job(head, good).status, job(head, good).exit_code) == ("SUCCEEDED", 0)
    assert ended.started is not None
    assert abs(ended.started - time.time()) < 120

    listed = head.call(submission.jobs, head.address)
    assert [each.submission_id for each in listed][:2] == [bad, good]
    of_run = head.call(submission.jobs, head.address, run="/shared/runs/art")
    assert [each.submission_id for each in of_run] == [bad]
    assert head.call(submission.cluster_gpus, head.address) == 0


def test_following_survives_a_cut_and_a_job_can_be_stopped(head: Head, wire: Wire) -> None:
    loop = 'import time\nfor i in range(999): print("line", i, flush=True); time.sleep(0.1)'
    submission_id = head.call(submit_shell, head.address, f"cat a.txt; python -c '{loop}'")
    near = f"http://127.0.0.1:{wire.port}"
    lines = head.client.submit(followed, near, submission_id)

    def printed() -> str:
        return head.call(submission.logs, head.address, submission_id)

    while not (wire.sent and "line 5\n" in printed()):
        time.sleep(0.1)
    wire.cut()
    time.sleep(1.5)
    wire.is_cut = False
    time.sleep(1.5)
    stopped = head.call(submission.stop, head.address, submission_id)
    assert (stopped.status, stopped.exit_code) == ("STOPPED", None)
    assert lines.result(timeout=60) == printed().splitlines()
    assert {"shipped", "line 20"} <= set(printed().splitlines())
    # Again: it has ended.
    assert head.call(submission.stop, head.address, submission_id).status == "STOPPED"


def test_the_same_content_is_uploaded_once(head: Head, wire: Wire) -> None:
    near = f"http://127.0.0.1:{wire.port}"
    first = submit(head, "--version", run="r", address=near)
    before = wire.sent
    second = submit(head, "--version", run="r", address=near)
    assert wire.sent - before < 10_000
    uris = {details(head, each)["runtime_env"]["working_dir"] for each in (first, second)}
    assert len(uris) == 1
    other = head.call(submit_shell, near, "true", text="other")
    assert wire.sent - before > 100_000
    assert details(head, other)["runtime_env"]["working_dir"] not in uris


def details(head: Head, submission_id: str) -> dict:
    answer = requests.get(
        f"{head.address}/api/jobs/{submission_id}",
        headers={"Authorization": f"Bearer {head.token}"}, timeout=10,
    )  # fmt: skip
    return answer.json()


def test_neither_token_nor_secrets_are_left_anywhere(head: Head) -> None:
    code = f"""
from jobs.cluster.submission import follow, job, submit
address, files = {head.address!r}, {{"captions.csv": b"caption"}}
submission_id = submit(address, arguments=["--version"], run="/shared/r", files=files,
                       ships_reference_model=False)
print(submission_id, *follow(address, submission_id), job(address, submission_id), sep="\\n")
"""
    result = head.python(
        "-c", code, RAY_AUTH_TOKEN=head.token, AWS_SECRET_ACCESS_KEY=SECRET, HF_TOKEN=SECRET,
        AWS_REGION="eu-1", HF_HUB_OFFLINE="1", RAY_ADDRESS="10.9.9.9:6379",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    submission_id = result.stdout.split()[0]
    described = details(head, submission_id)
    assert described["runtime_env"]["env_vars"] == {
        "AWS_REGION": "eu-1", "HF_HUB_OFFLINE": "1",
        "DQF_SUBMISSION_ID": submission_id, "DQF_JOBS_ADDRESS": head.address,
    }  # fmt: skip
    assert described["metadata"]["dqf_run"] == "/shared/r"
    left = [
        result.stdout, result.stderr, json.dumps(described),
        head.call(submission.logs, head.address, submission_id),
        *(path.read_text(errors="replace") for path in head.folder.glob("r/session_2*/logs/**/*")
          if path.is_file() and submission_id in path.name),
    ]  # fmt: skip
    assert len(left) > 4
    for text in left:
        assert head.token not in text
        assert SECRET not in text


def submitted(head: Head) -> list[str]:
    """The jobs' names alone: an earlier test's job may still change its state."""
    return sorted(job.submission_id for job in head.call(submission.jobs, head.address))


def test_bad_concepts_end_before_anything_is_submitted(head: Head) -> None:
    (head.folder / "bad.csv").write_text("concept,replacement\napple,\napple,castle\n")
    before = submitted(head)
    result = head.dqf("edit-batch", "bad.csv", "--address", head.address, "--out", "o")
    assert result.returncode == 2
    assert "line 3" in result.stderr
    assert submitted(head) == before


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RAY_AUTH_TOKEN": "0123456789abcdef0123"}, "Invalid authentication token"),
        ({"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_MODE": ""}, "Missing authentication token"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere", "RAY_AUTH_MODE": ""}, "/nowhere: no such file"),
    ],
)
def test_a_refused_token_is_one_sentence(
    head: Head, environment: dict[str, str], message: str
) -> None:
    stderr = refused(head, head.address, **environment)
    assert message in stderr
    assert "RAY_AUTH_TOKEN or ~/.ray/auth_token" in stderr
    assert "0123456789abcdef0123" not in stderr


def test_what_is_no_cluster_is_one_sentence(head: Head) -> None:
    (port,) = free_ports(1)
    assert "no Ray cluster answers at" in refused_here(head, f"http://127.0.0.1:{port}")
    assert "does not speak https" in refused_here(head, head.address.replace("http", "https"))
    assert "is not http://HOST:PORT" in refused_here(head, "http://h:99999")
    secret = refused_here(head, f"http://user:{SECRET}@127.0.0.1:8265")
    assert "no user or password" in secret
    assert SECRET not in secret

    seen: list[str] = []

    class Plain(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers))
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Plain) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert "is not a Ray cluster" in refused_here(
            head, f"http://127.0.0.1:{server.server_port}"
        )
        server.shutdown()
    assert seen
    assert head.token not in "".join(seen)


def refused_here(head: Head, address: str) -> str:
    """Return the refusal of a command in the client's process, which has the token."""
    return sentence_of(head.call(dqf, *editing(head, address), cwd=head.folder))


def refused(head: Head, address: str, **environment: str) -> str:
    """Return the refusal of a command in a process of its own."""
    return sentence_of(head.dqf(*editing(head, address), **environment))


def editing(head: Head, address: str) -> list[str]:
    (head.folder / "c.csv").write_text(CONCEPTS)
    return ["edit-batch", "c.csv", "--out", "o", "--address", address]


def sentence_of(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2, result.stderr
    (sentence,) = result.stderr.removeprefix("reading c.csv\n").splitlines()
    assert sentence.startswith("dqf: ")
    return sentence


@pytest.mark.parametrize("function", [submission.job, submission.logs, submission.stop, followed])
@pytest.mark.parametrize("submission_id", ["dqf-none-0", "", "../nodes"])
def test_an_unknown_job_is_one_sentence(head: Head, function: object, submission_id: str) -> None:
    with pytest.raises(ClusterUnavailable, match=f"knows no job '{submission_id}'"):
        head.call(function, head.address, submission_id)  # pyright: ignore


@pytest.fixture
def model(head: Head, tiny_sd: Path) -> Path:
    """Return a model in the head's folder that knows few names, next to a file of concepts."""
    model = head.folder / "model"
    shutil.copytree(tiny_sd, model, dirs_exist_ok=True)
    words = {"objects": ["apple", "castle", "bird"], "styles": [], "colors": ["natural", "red"]}
    (model / "vocabulary.json").write_text(json.dumps(words))
    (head.folder / "my concepts.csv").write_text(CONCEPTS)
    return model


@pytest.mark.slow
def test_a_sweep_as_a_job(head: Head, model: Path, tiny_scorer: Path) -> None:
    result = head.dqf(
        "edit", "sweep", "my concepts.csv", "--address", head.address, "--out", "swept",
        "--model", model.name, "--scorer", str(tiny_scorer), "--images", "1", "--steps", "2",
        "--anchor", "identity", "--layer", "text_encoder.layers.0.self_attn", "--device", "cpu",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (swept,) = json.loads((head.folder / "swept" / "sweep.json").read_text())
    assert swept["edit"] == "identity-ridge-0.01-all"
    assert swept["kept"] is not None


@pytest.mark.slow
def test_an_edit_as_a_job(head: Head, model: Path, tiny_scorer: Path) -> None:
    edit = (
        "edit-batch", "my concepts.csv", "--address", head.address, "--out", "edited/model",
        "--model", model.name, "--scorer", str(tiny_scorer), "--images", "0", "--actors", "1",
        "--device", "cpu",
        "--layer", "text_encoder.layers.0.self_attn",
    )  # fmt: skip
    result = head.dqf(*edit)
    assert result.returncode == 0, result.stderr
    out = head.folder / "edited" / "model"
    assert f"edit: {out}" in result.stderr
    assert json.loads((out / "edit.json").read_text())["concepts"][0]["concept"] == "apple"
    again = head.dqf(*edit)
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr


def test_the_archive_holds_what_dqf_needs_and_no_more() -> None:
    git = ["git", "ls-files", *PACKAGES]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    names = set(listed.stdout.split())
    if not names:
        pytest.skip("no git checkout")
    shipped = set(code_files(ships_reference_model=True))
    assert {
        name for name in names - shipped if not name.endswith((".md", ".png", "py.typed"))
    } == set()
    pages = ("report.css", "report.html", "report.js", "index.html", "index.js", "questions.html")
    page = {f"jobs/report/page/{name}" for name in pages}
    assert page <= shipped
    kinds = (".py", ".csv", ".json", ".safetensors")
    assert all(name.endswith(kinds) for name in shipped - page)
    without = set(code_files(ships_reference_model=False))
    assert {name for name in shipped - without if "/emoji-" not in name} == set()
    assert not any("/emoji-" in name for name in without)


def test_the_same_content_is_the_same_archive() -> None:
    one, same, other = (
        job_archive({"b.csv": text, "a.csv": b""}, ships_reference_model=False)
        for text in (b"x", b"x", b"y")
    )
    assert one == same != other
    with ZipFile(io.BytesIO(one)) as archive:
        assert archive.read("b.csv") == b"x"
        assert "dqf/__main__.py" in archive.namelist()


def test_an_archive_that_no_cluster_accepts_is_refused() -> None:
    large = {"captions.safetensors": bytes(MAX_BYTES)}
    with pytest.raises(ClusterUnavailable, match=r"accepts 100 MiB: captions.safetensors"):
        job_archive(large, ships_reference_model=False)


def test_submitting_waits_for_an_agent_and_for_nothing_else() -> None:
    early = RuntimeError("code 500: No available agent to submit job, please try again later.")
    answers = [RuntimeError("other"), "id", early]

    def send() -> str:
        answer = answers.pop()
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    assert submission.once_there_is_an_agent(send) == "id"
    with pytest.raises(RuntimeError, match="other"):
        submission.once_there_is_an_agent(send)


def test_addresses_that_take_jobs() -> None:
    assert is_job_address("http://head:8265")
    assert is_job_address("https://head")
    assert not any(map(is_job_address, ("10.0.0.5:6379", "ray://h:10001", "auto")))
