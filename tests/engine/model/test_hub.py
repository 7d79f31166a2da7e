"""Fetching a hub model: once a node, the commit that was planned, and no file twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.model import registry
from engine.model.defaults import default_sampling
from engine.model.registry import default_scorer, model_source, pinned, unpinned
from tests.servers.hub import Hub, serving

ROOT = Path(__file__).parents[3]
COMMIT, REPO = "0123456789abcdef0123456789abcdef01234567", "owner/tiny"
WEIGHTS = {
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def hub(tiny_sd: Path, tmp_path: Path) -> Iterator[Hub]:
    """Serve a repo that holds the pipeline, and what no family opens, as real ones do."""
    folder = tmp_path / "repo"
    shutil.copytree(tiny_sd, folder)
    for name in (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ):
        (folder / name).write_bytes(b"a duplicate")
    (folder / "v1.ckpt").write_bytes(b"another")
    with serving(Hub(folder, repo=REPO, commit=COMMIT)) as served:
        yield served


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Return this process's environment with that hub and an empty cache."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return own | {"HF_HOME": str(home), "HF_ENDPOINT": hub.url}


@contextmanager
def opening(hub: Hub, home: Path, *, count: int) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that opens the pinned model in `count` processes."""
    command = [sys.executable, "-m", "tests.models.opening", f"{REPO}@{COMMIT}", str(count)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        env=environment(hub, home),
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def say_go(process: subprocess.Popen[str]) -> None:
    """Let the processes after the first start."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def asked_twice(hub: Hub) -> list[str]:
    """Return what was asked more than once, but for the file that says what the model is."""
    counts = hub.requests.items()
    return [path for path, count in counts if count > 1 and REPO in path and "index" not in path]


def codes(process: subprocess.Popen[str]) -> list[int]:
    """Return the exit codes of the processes that opened the model."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return [int(code) for code in out.split()[-4:]]


@pytest.mark.slow
def test_processes_of_a_node_fetch_each_file_once(hub: Hub, tmp_path: Path) -> None:
    with opening(hub, tmp_path / "home", count=4) as process:
        say_go(process)
        assert codes(process) == [0, 0, 0, 0]
    assert {name for name in hub.gets if not name.endswith(".json")} == WEIGHTS
    assert set(hub.gets.values()) == {1}, hub.gets
    assert asked_twice(hub) == [], "the three that waited found every file there"


@pytest.mark.slow
def test_a_killed_process_leaves_the_fetching_to_the_others(hub: Hub, tmp_path: Path) -> None:
    hub.stall_at = "unet/diffusion_pytorch_model.safetensors"
    with opening(hub, tmp_path / "home", count=4) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        assert hub.stalled.wait(timeout=60)
        say_go(process)
        assert process.stdout.readline() == "started\n"
        time.sleep(1.0)
        assert asked_twice(hub) == [], "the others wait"
        os.kill(first, signal.SIGKILL)
        assert codes(process) == [-signal.SIGKILL, 0, 0, 0]
    assert hub.gets[hub.stall_at] == 2
    assert {hub.gets[name] for name in WEIGHTS - {hub.stall_at}} == {1}


def cache_commit(repo: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a cache know the commit of a repo's main branch."""
    refs = cache / f"models--{repo.replace('/', '--')}" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


def test_a_hub_model_is_pinned_to_the_commit_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_commit("CompVis/stable-diffusion-v1-4", tmp_path, monkeypatch)
    assert pinned("sd-1.4") == f"sd-1.4@{COMMIT}"
    assert pinned(f"sd-1.4@{COMMIT}") == f"sd-1.4@{COMMIT}"
    assert pinned("owner/unknown") == "owner/unknown"
    assert pinned("emoji-sd") == "emoji-sd"
    assert registry.model_hash("sd-1.4") == registry.model_hash(f"sd-1.4@{COMMIT}")
    assert registry.model_hash("sd-1.4") != registry.model_hash(f"sd-1.4@{COMMIT[::-1]}")


def test_a_variant_stays_with_a_name_that_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_commit("stabilityai/stable-diffusion-xl-base-1.0", tmp_path, monkeypatch)
    name = f"sdxl@{COMMIT}#fp16"
    assert pinned("sdxl#fp16") == pinned(name) == name
    assert unpinned(name) == "sdxl#fp16"
    assert model_source(name) == f"{model_source('sdxl')}@{COMMIT}"
    assert default_sampling(name) == default_sampling("sdxl")
    assert registry.model_hash("sdxl#fp16") == registry.model_hash(name)
    assert registry.model_hash("sdxl#fp16") != registry.model_hash("sdxl")


def test_a_pinned_name_stands_for_the_same_model() -> None:
    name = f"lcm@{COMMIT}"
    assert unpinned(name) == "lcm"
    assert model_source(name) == f"{model_source('lcm')}@{COMMIT}"
    assert default_sampling(name) == default_sampling("lcm") == (4, 8.0)
    assert default_scorer(f"emoji-sd@{COMMIT}") == default_scorer("emoji-sd")


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a@b"
    folder.mkdir()
    assert unpinned(str(folder)) == pinned(str(folder)) == str(folder)


@pytest.mark.slow
def test_a_plan_names_the_commit_that_it_was_checked_on(hub: Hub, tmp_path: Path) -> None:
    code = f"""if True:
        from jobs.tracing.plan import check_plan, make_plan
        caption = {{"caption": "a red apple", "subject": "apple", "attribute": "object"}}
        plan = make_plan({{"model": "{REPO}", "captions": [caption], "windows": ["all"]}})
        checked = check_plan(plan).plan
        print(checked.model, check_plan(checked).plan == checked)
    """
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(hub, tmp_path / "home"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.split() == [f"{REPO}@{COMMIT}", "True"], result.stderr
    assert not WEIGHTS & set(hub.gets), "a plan is checked without weights"


def recipe(folder: Path) -> str:
    """Return the command of docs/cluster.md that fills a cache, for the models of these tests."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    (command,) = [block for block in blocks if "HF_HOME=" in block]
    command = command.replace("HF_HOME=/weights python", sys.executable)
    return command.replace("sd-1.4", REPO).replace("ViT-B-16:openai", str(folder))


@pytest.mark.slow
def test_a_plan_is_checked_offline_from_the_cache_that_the_recipe_fills(
    hub: Hub, tiny_scorer: Path, tmp_path: Path
) -> None:
    env = environment(hub, tmp_path / "home")
    command = recipe(tiny_scorer)
    assert REPO in command
    subprocess.run(command, shell=True, env=env, cwd=ROOT, timeout=200, check=True)
    assert {name for name in hub.gets if not name.endswith(".json")} == WEIGHTS
    asked = sum(hub.requests.values())
    caption = '{"caption": "a red apple", "subject": "apple", "attribute": "object"}'
    (tmp_path / "captions.jsonl").write_text(caption)
    result = subprocess.run(
        [sys.executable, "-m", "dqf", "trace", "plan", "--model", REPO, "--scorer", tiny_scorer,
         "--captions", tmp_path / "captions.jsonl", "--steps", "2", "--format", "json"],
        env=env | {"HF_HUB_OFFLINE": "1"}, cwd=ROOT, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)
    assert sum(hub.requests.values()) == asked, "nothing is asked of the hub"
