"""dqf commands as jobs on a cluster, through Ray's Jobs API: submit, list, follow, stop.

Ray itself reads the cluster's token, from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
~/.ray/auth_token, and sends it as a header: it is part of no job. A job gets from here the
variables of FORWARDED and no other: keys of object storage or of the model hub come from the
nodes' own environment or instance role.
"""

# pyright: reportUnknownMemberType=false
# Ray leaves parts of some methods without types.

import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypedDict, cast

from engine.files import temporary_folder
from jobs.cluster.archive import job_archive
from jobs.cluster.client import NoAnswer, job_client, one_sentence, unknown_job
from schemas.errors import ClusterUnavailable

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

FORWARDED = (
    "HF_HOME", "HF_HUB_OFFLINE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP",
    "GOOGLE_CLOUD_PROJECT",
)  # fmt: skip
"""Variables of this environment that a job inherits; none is a secret."""
ENDED = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})
RUN_KEY, COMMAND_KEY = "dqf_run", "dqf_command"
AGENT_S = 30.0
"""Seconds that a cluster that has just started may be without an agent that takes jobs."""
POLL_S = 0.5
FOLLOW_S = 1.0
LOG_BYTES_S = 200_000
"""Rate of reading a log, which is sent whole each time: longer logs are read less often."""
LOST_S = 60.0
"""Seconds that a cluster may be away while one of its jobs is followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as its cluster describes it."""

    submission_id: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    run: str | None
    """Location of the run that it works on."""
    command: str
    """The arguments of dqf; the shell command of a job that dqf did not submit."""
    started: float | None
    """Seconds since the epoch."""
    message: str
    exit_code: int | None = None
    """Exit code of its process, negative after a signal; None while it runs or if none started."""

    @property
    def has_ended(self) -> bool:
        """Return whether the job will do nothing more."""
        return self.status in ENDED


def is_job_address(address: str) -> bool:
    """Return whether `address` is a dashboard's, which takes jobs, not one that Ray joins."""
    return address.startswith(("http://", "https://"))


def submit(
    address: str,
    *,
    arguments: Sequence[str],
    run: str,
    files: Mapping[str, bytes],
    gpus: float = 0,
    ships_reference_model: bool = True,
) -> str:
    """Start `dqf ARGUMENTS` on a cluster, `files` in its working directory; return the job's id."""
    archive = job_archive(files, ships_reference_model=ships_reference_model)
    metadata = {RUN_KEY: run, COMMAND_KEY: shlex.join(arguments)}
    # PATH of the node, so that an image's own environment is used.
    entrypoint = shlex.join(["python", "-m", "dqf", *arguments])
    return submit_command(
        address, entrypoint, run=run, archive=archive, metadata=metadata, gpus=gpus
    )


def submit_command(
    address: str,
    entrypoint: str,
    *,
    run: str,
    archive: bytes,
    metadata: Mapping[str, str],
    gpus: float = 0,
) -> str:
    """Start a shell command on a cluster in the unpacked `archive`; return the job's id."""
    client = job_client(address)
    submission_id = _new_id(run)
    variables = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    variables |= {SUBMISSION_VARIABLE: submission_id, JOBS_ADDRESS_VARIABLE: address}
    with temporary_folder("job") as folder:
        package = Path(folder, "job.zip")
        package.write_bytes(archive)
        send = partial(
            client.submit_job,
            entrypoint=entrypoint,
            submission_id=submission_id,
            # Ray replaces the path by the hash of the archive, and uploads it if that is new.
            runtime_env={"working_dir": str(package), "env_vars": variables},
            metadata=dict(metadata),
            entrypoint_num_gpus=gpus or None,
        )
        with one_sentence(address):
            return once_there_is_an_agent(send)


def job(address: str, submission_id: str) -> Job:
    """Return a job's state; ClusterUnavailable if the cluster does not know the job."""
    with one_sentence(address, submission_id):
        details = job_client(address).get_job_info(submission_id)
    if details.submission_id is None:
        raise unknown_job(address, submission_id)
    return _described(details)


def jobs(address: str, *, run: str | None = None) -> list[Job]:
    """Return the jobs that were submitted, of one run if it is given, newest first."""
    with one_sentence(address):
        # Drivers that connect by themselves are listed as well, without a submission id.
        described = [_described(d) for d in job_client(address).list_jobs() if d.submission_id]
    described.sort(key=lambda a: a.started or 0.0, reverse=True)
    return [a for a in described if run is None or a.run == run]


def logs(address: str, submission_id: str) -> str:
    """Return the job's output so far."""
    with one_sentence(address, submission_id):
        return job_client(address).get_job_logs(submission_id)


def follow(address: str, submission_id: str) -> Iterator[str]:
    """Yield a job's lines as they come, without their ends, until the job ends.

    The log is asked for again and again (Ray's websocket ends seconds after the job, and a dead
    one looks like a silent job). ClusterUnavailable: the cluster is gone for LOST_S.
    """
    client, seen, answered_s = None, 0, None
    while True:
        try:
            client = client or job_client(address)
            with one_sentence(address, submission_id):
                # The state is read first: a log that is read after the end is complete.
                has_ended = client.get_job_info(submission_id).status.value in ENDED
                text = client.get_job_logs(submission_id)
            answered_s = time.monotonic()
        except NoAnswer:
            if answered_s is None or time.monotonic() - answered_s > LOST_S:
                raise
            time.sleep(FOLLOW_S)
            continue
        whole = len(text) if has_ended else text.rfind("\n") + 1
        yield from text[seen:whole].splitlines()
        if has_ended:
            return
        seen = max(seen, whole)
        time.sleep(max(FOLLOW_S, len(text) / LOG_BYTES_S))


def stop(address: str, submission_id: str, *, timeout_s: float = 30) -> Job:
    """Ask a job to stop and return it once it has ended; its process gets SIGTERM.

    ClusterUnavailable: it has not ended after `timeout_s`.
    """
    with one_sentence(address, submission_id):
        job_client(address).stop_job(submission_id)
    deadline_s = time.monotonic() + timeout_s
    while not (ended := job(address, submission_id)).has_ended:
        if time.monotonic() > deadline_s:
            raise ClusterUnavailable(
                f"job {submission_id} at {address} was asked to stop and still runs after "
                f"{timeout_s:.0f} s; look at it again, or stop it once more"
            )
        time.sleep(POLL_S)
    return ended


class _Node(TypedDict):
    """The fields of a node that are read from Ray's answer."""

    state: str
    resources_total: dict[str, float] | None


def cluster_gpus(address: str) -> float:
    """Return how many GPUs the nodes of a cluster have now."""
    client = job_client(address)
    with one_sentence(address):
        # The nodes as `ray list nodes --detail` gets them.
        path = "/api/v0/nodes?detail=true&limit=10000"
        answer = cast(Any, client._do_request("GET", path))  # pyright: ignore[reportPrivateUsage]
        if answer.status_code != 200:
            client._raise_error(answer)  # pyright: ignore[reportPrivateUsage]
    nodes = cast("list[_Node]", answer.json()["data"]["result"]["result"])
    alive = [node for node in nodes if node["state"] == "ALIVE"]
    return sum((node["resources_total"] or {}).get("GPU", 0.0) for node in alive)


def once_there_is_an_agent(send: Callable[[], str]) -> str:
    """Return the result of `send`, repeated for AGENT_S while the cluster has no agent yet."""
    deadline_s = time.monotonic() + AGENT_S
    pause_s = 1.0
    while True:
        try:
            return send()
        except RuntimeError as error:
            is_early = "No available agent to submit job" in str(error)
            if not is_early or time.monotonic() + pause_s > deadline_s:
                raise
        time.sleep(pause_s)
        pause_s *= 2


def _new_id(run: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(run).name).strip("-.")
    return f"dqf-{name or 'run'}-{secrets.token_hex(4)}"


def _described(details: "JobDetails") -> Job:
    metadata = details.metadata or {}
    return Job(
        submission_id=details.submission_id or "",
        status=details.status.value,
        run=metadata.get(RUN_KEY),
        command=metadata.get(COMMAND_KEY, details.entrypoint),
        started=None if details.start_time is None else details.start_time / 1000,
        message=(details.message or "").strip(),
        exit_code=details.driver_exit_code,
    )


SUBMISSION_VARIABLE = "DQF_SUBMISSION_ID"
"""Environment variable of a submitted job that holds its id."""
JOBS_ADDRESS_VARIABLE = "DQF_JOBS_ADDRESS"
"""Environment variable of a submitted job that holds the address it was submitted to."""
