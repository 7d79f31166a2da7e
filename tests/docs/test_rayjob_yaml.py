"""`docs/rayjob.yaml`: every field is one that KubeRay knows, and they mean what we want."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from cli.app import app

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(__file__).parent / "rayjob_schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
Document = dict[str, Any]


@pytest.fixture
def job() -> Document:
    return read()


def read() -> Document:
    # Through JSON: what an anchor gives to several places is then a value of each.
    return json.loads(json.dumps(yaml.safe_load((ROOT / "docs" / "rayjob.yaml").read_text())))


def fields(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every field whose name KubeRay or Kubernetes gives."""
    free = {"labels", "nodeSelector", "rayStartParams", "requests", "limits"}
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            if name not in free:
                yield from fields(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from fields(inner, (*path, index))


def cluster_and_pods(job: Document) -> tuple[Document, Document, Document]:
    """Return the cluster's spec, the head's pod and the one worker group's pod."""
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    return cluster, cluster["headGroupSpec"]["template"]["spec"], group["template"]["spec"]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_example_has_known_fields_alone(job: Document) -> None:
    VALIDATOR.validate(job)


@pytest.mark.parametrize("path", list(fields(read())), ids=lambda path: ".".join(map(str, path)))
def test_a_typo_is_refused(job: Document, path: tuple) -> None:
    holder: Any = job
    for step in path[:-1]:
        holder = holder[step]
    holder[f"{path[-1]}x"] = holder.pop(path[-1])
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(job)


@pytest.mark.parametrize(
    ("holder", "field", "value"),
    [
        (lambda j: j["spec"], "submissionMode", "K8SJobMode"),
        (lambda j: j["spec"], "backoffLimit", "3"),
        (lambda j: j["spec"]["rayClusterSpec"]["authOptions"], "mode", "Token"),
        (lambda j: j["spec"]["rayClusterSpec"]["autoscalerOptions"], "version", 2),
        (lambda j: j["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"], "num-cpus", 0),
        (lambda j: cluster_and_pods(j)[2]["tolerations"][0], "effect", "NoScheduling"),
        (
            lambda j: cluster_and_pods(j)[2]["containers"][0]["resources"]["limits"],
            "memory",
            "14GB",
        ),
        (lambda j: cluster_and_pods(j)[2]["containers"][0]["env"][1], "value", 1),
    ],
)
def test_a_wrong_value_is_refused(job: Document, holder: Any, field: str, value: object) -> None:
    assert field in holder(job)
    holder(job)[field] = value
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(job)


def test_the_cluster_has_a_token_and_no_task_on_its_head(job: Document) -> None:
    cluster, head, worker = cluster_and_pods(job)
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned[1]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert {head["restartPolicy"], worker["restartPolicy"]} == {"Never"}
    assert head["nodeSelector"] != worker["nodeSelector"]


def test_a_worker_has_a_gpu_and_room_and_weights_that_it_cannot_write(job: Document) -> None:
    _, head, worker = cluster_and_pods(job)
    for pod in (head, worker):
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts["/weights"]["readOnly"] is True
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        assert env == {"HF_HOME": "/weights", "HF_HUB_OFFLINE": "1"}
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["containers"][0]["image"] == head["containers"][0]["image"]


def test_the_entrypoint_is_a_command_of_dqf(job: Document) -> None:
    program, group, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "dqf"
    trace: Any = typer.main.get_command(app).commands[group]  # pyright: ignore
    context = trace.commands[words[0]].make_context(words[0], words[1:], resilient_parsing=False)
    assert str(context.params["run"]).startswith("s3://")
