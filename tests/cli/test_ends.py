"""How commands end: by a signal, at a full or closed stdout, at options that cannot be."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import grpc
import psutil
import pytest
from requests.utils import should_bypass_proxies

from cli.options.run import here_or_there
from cli.printing.streams import check_folder
from jobs.cluster.address import ANSWER_S, check_address, check_answers, try_to_join
from jobs.cluster.client import job_client
from jobs.cluster.connection import JOIN_S, MOST_LOCAL, Cluster
from jobs.cluster.processes import DRIVER_VARIABLE, orphans
from jobs.cluster.token import protect_token
from schemas.errors import ClusterUnavailable, DqfError
from tests.cli.test_commands import dqf
from tests.covering import slow
from tests.jobs.query.test_run_paths import traced

ROOT = Path(__file__).parents[2]
FOREVER = "SELECT count(*) FROM range(99999999999) a, range(9999999) b WHERE a.range % 7 = b.range"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    traced(folder / "runs" / "r")
    return folder


def started(*arguments: str, cwd: Path, **how: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd / "tmp")}
    (cwd / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "dqf", *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **how)  # pyright: ignore


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_temporary_files(number: signal.Signals, work: Path) -> None:
    # Under nohup a process inherits that it ignores SIGHUP.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = started("query", "r", FOREVER, "--out", "a.csv", cwd=work)
    signal.signal(signal.SIGHUP, before)
    try:
        deadline = time.monotonic() + 60
        while not list((work / "tmp").glob("dqf-query-*")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    finally:
        process.kill()
    assert list((work / "tmp").glob("dqf-query-*")) == []
    assert [path.name for path in work.iterdir() if path.name.startswith((".a", "a.csv"))] == []


@pytest.mark.parametrize(
    "command",
    [
        "query r --command FROM+scores --format csv",
        "query r --command FROM+scores --format parquet",
        slow("query r --command FROM+scores --format table"),
        slow("query r --command FROM+scores --format json"),
        "--help",
        slow("trace submit --help"),
        slow("--version"),
        slow("query --schema"),
        slow("doctor r"),
    ],
)
def test_a_full_stdout_is_a_sentence(command: str, work: Path) -> None:
    arguments = [word.replace("+", " ") for word in command.split()]
    with open("/dev/full", "w") as full:
        process = started(*arguments, cwd=work, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot write to stdout: No space left on device" in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


def test_a_closed_stdout_is_a_sentence(work: Path) -> None:
    line = f'"{sys.executable}" -m dqf query r "SELECT 1" >&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        line, shell=True, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "dqf: stdout is closed, where would the output go? send it to a file\n"


@pytest.mark.parametrize("options", ["", "--file -"])
def test_a_closed_stdin_is_a_sentence(options: str, work: Path) -> None:
    line = f'"{sys.executable}" -m dqf query r {options} <&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        line, shell=True, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("dqf: stdin is closed: give the SELECT as a word")


def test_an_encoding_that_lacks_a_letter_is_a_sentence(work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dqf", "query", "r", "SELECT 'caf\u00e9'"], cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "dqf: stdout's encoding, ascii, lacks '\\xe9': set PYTHONIOENCODING=utf-8\n"
    )


@pytest.mark.parametrize(
    "setting", [("TERMINAL_WIDTH", "abc"), ("COLUMNS", "9" * 11), ("COLUMNS", "\u00b2")]
)
def test_a_width_that_no_terminal_has_is_a_sentence(
    setting: tuple[str, str], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*setting)
    done = dqf("nosuch", cwd=work)
    assert done.returncode == 2
    assert done.stderr.startswith(f"dqf: {setting[0]}=")
    assert done.stderr.endswith("must be a number up to 9999: unset it\n")


def test_a_working_directory_that_is_gone_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(DqfError, match="the working directory is gone"):
        check_folder()


@pytest.mark.parametrize("gpus", ["1.5", "-1", "nan", "inf", "1e300"])
def test_gpus_that_ray_cannot_give_are_refused(gpus: str, work: Path) -> None:
    done = dqf("trace", "submit", "--run", "new", "--gpus", gpus, cwd=work)
    assert done.returncode == 2
    assert not (work / "runs" / "new").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--draws", "1000000000000"),
        ("--seed", "1", "--seed", "1"),
        ("--seed", str(10**30)),
        ("--scorer", "no-such-scorer"),
        ("--run", ""),
        ("--run", " "),
        ("--run", ".."),
        ("--gpus", "1000"),
        ("--gpus", "1024", "--actors", "2"),
    ],
)
def test_what_is_refused_leaves_no_run(options: tuple[str, ...], tmp_path: Path) -> None:
    done = dqf("trace", "submit", *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr) < 1000
    assert list(tmp_path.rglob("*")) == []


def test_a_folder_of_folders_becomes_no_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine" / "photos").mkdir(parents=True)
    for name in ("mine", "./runs", "."):
        done = dqf("trace", "submit", "--run", name, cwd=tmp_path)
        assert done.returncode == 2
        assert "exists and holds no run" in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "photos", "runs"]


def test_the_token_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ray" / "auth_token"
    protect_token()
    token = path.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    path.parent.chmod(0o755)
    protect_token()
    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    protect_token()
    assert not path.exists()


def test_a_dashboard_is_not_joined_as_a_cluster() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")
            connection.close()

        Thread(target=answer).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterUnavailable, match=f"give http://{address}"):
            check_address(address)


def test_auto_is_the_cluster_that_ray_finds_and_asked_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # Ray prefers it to what it finds itself
    monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", "20")  # is Ray's own for the tests after it
    with pytest.raises(ClusterUnavailable, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        check_address("auto")


@pytest.mark.parametrize("host", ["[::1]", "x" * 5000, "no.such.host.invalid"])
def test_a_host_that_cannot_be_is_one_sentence(host: str) -> None:
    with pytest.raises(ClusterUnavailable, match="no Ray cluster answers"):
        check_address(f"{host}:1")
    with pytest.raises(ClusterUnavailable, match="no Ray cluster answers"):
        job_client(f"http://{host}:1")


@pytest.mark.parametrize("before", ["", "ray://"])
def test_a_server_that_begins_as_rays_and_is_then_silent_is_given_up(before: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{before}127.0.0.1:{server.getsockname()[1]}"

        def settings_alone() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                    open_ones.append(connection)

        open_ones: list[socket.socket] = []
        Thread(target=settings_alone, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(ClusterUnavailable, match="does not answer as a Ray cluster does"):
            check_address(address)
        assert time.monotonic() - start < ANSWER_S + 3


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 64, b"+PONG\r\n"])
def test_a_port_that_is_not_rays_is_refused_within_seconds(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)
                connection.recv(100)
                time.sleep(1.0 if said else ANSWER_S + 1)

        Thread(target=answer, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(ClusterUnavailable, match="does not answer as a Ray cluster does"):
            check_address(f"127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - start < ANSWER_S + 3


def test_a_server_that_trickles_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(60):
                    connection.sendall(b" ")
                    time.sleep(1.0)

        Thread(target=answer, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(ClusterUnavailable, match="no Ray cluster answers at http://127"):
            job_client(f"http://127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - start < 2 * ANSWER_S + 5


@contextmanager
def grpc_server(*methods: str) -> Generator[str]:
    """Yield the address of a server that answers methods, as "/package.Service/Method"."""
    server = grpc.server(ThreadPoolExecutor(1))
    for method in methods:
        _, service, name = method.split("/")
        handler = grpc.unary_unary_rpc_method_handler(lambda question, _: question)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {name: handler})]
        )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


def test_a_server_of_rays_protocol_is_joined() -> None:
    with grpc_server("/ray.rpc.NodeInfoGcsService/GetClusterId") as address:
        check_answers(address)
        with pytest.raises(ClusterUnavailable, match="10001 after ray://"):
            check_address(f"ray://{address}")
    with grpc_server("/ray.rpc.RayletDriver/ClusterInfo") as address:
        check_answers(f"ray://{address}")


class FallsSilent(grpc.GenericRpcHandler):
    """A server that answers Ray's first question and never another one."""

    def __init__(self) -> None:
        """Wait for any question."""
        self.asked: list[str] = []
        self.end = Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the handler of a question."""
        self.asked.append(handler_call_details.method)
        if handler_call_details.method.endswith("/GetClusterId"):
            cluster_id = bytes([10, 0, 18, 28]) + b"c" * 28  # a status, and an id of 28 bytes
            return grpc.unary_unary_rpc_method_handler(lambda *_: cluster_id)
        return grpc.unary_unary_rpc_method_handler(lambda *_: bytes(self.end.wait(200)))


@contextmanager
def silent_cluster() -> Generator[tuple[str, FallsSilent]]:
    """Yield the address of a server that falls silent, and its questions."""
    server, handler = grpc.server(ThreadPoolExecutor(8)), FallsSilent()
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", handler
    finally:
        handler.end.set()
        server.stop(None)


def test_a_cluster_that_falls_silent_is_not_joined_for_ever() -> None:
    with silent_cluster() as (address, server):
        check_answers(address)
        start = time.monotonic()
        with pytest.raises(ClusterUnavailable, match="joining it took more than 2 seconds"):
            try_to_join(address, seconds=2)
        assert time.monotonic() - start < 40  # importing Ray, on a busy machine
        assert "/ray.rpc.InternalKVGcsService/InternalKVGet" in server.asked


JOINING = """
import sys
from jobs.cluster.connection import join, prepare_environment
from schemas.errors import ClusterUnavailable
prepare_environment(sys.argv[1])
try:
    join(sys.argv[1], seconds=2)
except ClusterUnavailable as error:
    sys.exit(str(error))
"""


def test_a_process_that_waits_for_a_silent_cluster_ends_with_a_sentence() -> None:
    """As after the trial: Ray's own thread still waits then."""
    with silent_cluster() as (address, server):
        start = time.monotonic()
        command = [sys.executable, "-c", JOINING, address]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert time.monotonic() - start < 60  # Ray itself would wait for three minutes
        assert "/ray.rpc.InternalKVGcsService/InternalKVGet" in server.asked
    assert done.returncode == 1
    assert done.stderr.startswith(f"the Ray cluster at {address} answers, but joining it took more")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_cluster_that_falls_silent_leaves_no_run(tmp_path: Path) -> None:
    with silent_cluster() as (address, _):
        start = time.monotonic()
        done = dqf("trace", "submit", "--run", "r", "--address", address, cwd=tmp_path)
        assert time.monotonic() - start < JOIN_S + 60
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) < 4
    assert f"{address} answers, but joining it took more than {JOIN_S} seconds" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_ray_says_of_joining_is_one_sentence() -> None:
    with (
        grpc_server("/ray.rpc.RayletDriver/ClusterInfo") as address,
        pytest.raises(ClusterUnavailable, match=rf"^cannot join .* ray://{address}: .+$") as caught,
    ):
        check_address(f"ray://{address}")
    assert len(str(caught.value)) < 500


def test_another_program_of_the_same_protocol_is_not_joined() -> None:
    with grpc_server("/helloworld.Greeter/SayHello") as address:
        for given in (address, f"ray://{address}"):
            with pytest.raises(ClusterUnavailable, match="does not answer as a Ray cluster does"):
                check_address(given)


@pytest.mark.parametrize("direct", [None, "example.org", "*"])
def test_no_proxy_stands_before_the_loopback(
    direct: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", direct or "")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                connection.recv(1000)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")
                connection.close()

        Thread(target=answer, daemon=True).start()
        for host in ("127.0.0.1", "localhost"):
            # It was reached: a proxy would be "no Ray cluster answers".
            with pytest.raises(ClusterUnavailable, match=r"the program at .* is not a Ray cluster"):
                job_client(f"http://{host}:{server.getsockname()[1]}")
    assert should_bypass_proxies("http://example.org", None) is (direct is not None)


def test_more_actors_than_a_machine_can_have_are_refused() -> None:
    with pytest.raises(ClusterUnavailable, match=r"this machine can have \d+ actors, not 100000"):
        Cluster(actors=100_000)
    assert Cluster(actors=MOST_LOCAL).actors == MOST_LOCAL
    assert Cluster(address="10.0.0.5:6379", actors=100_000).actors == 100_000


@pytest.mark.parametrize("word", ["local", ""])
def test_rays_own_word_for_a_local_one_is_read(word: str) -> None:
    assert here_or_there(word) is None
    assert here_or_there("10.0.0.5:6379") == "10.0.0.5:6379"


@pytest.mark.parametrize(
    "text", ["1:5.0", "4000000:123456.0", "", "abc", "1:", ":1", "99999999999999999999:1", "1:x\n2"]
)
def test_a_process_that_is_not_rays_is_not_ended(text: str) -> None:
    with subprocess.Popen(["sleep", "60"], env={**os.environ, DRIVER_VARIABLE: text}) as process:
        try:
            assert process.pid not in [orphan.pid for orphan in orphans()]
        finally:
            psutil.Process(process.pid).kill()
