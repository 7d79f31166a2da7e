"""Reaching the Jobs API of a cluster: Ray's client, and one sentence for each way it fails."""

import logging
import os
import re
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from jobs.cluster.address import ANSWER_S
from jobs.cluster.connection import prepare_environment
from jobs.cluster.token import TOKEN_HELP
from schemas.errors import ClusterUnavailable, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

T = TypeVar("T")
REQUEST_S = 60.0
"""Seconds that a cluster may be silent within one request; Ray's own client waits for ever."""
DASHBOARD_HELP = "give the address of its dashboard (port 8265 if none was chosen)"


class NoAnswer(ClusterUnavailable):
    """The cluster does not answer now; the same request may succeed later."""


def job_client(address: str) -> "JobSubmissionClient":
    """Return Ray's client of the cluster whose dashboard is at `address`."""
    _check(address)
    _probe(address)
    with one_sentence(address), _named_for_ray(address):
        from ray.job_submission import JobSubmissionClient

        for module in ("dashboard_sdk", "job.sdk"):
            # They say at level INFO what is uploaded.
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.ERROR)
        client = JobSubmissionClient(address)
    client._do_request = partial(client._do_request, timeout=REQUEST_S)  # pyright: ignore
    return client


@contextmanager
def one_sentence(address: str, submission_id: str | None = None) -> Generator[None]:
    """Turn errors of Ray's client into ClusterUnavailable."""
    # Before Ray is imported: it then reads whether there is a token.
    prepare_environment(address)
    from ray.exceptions import AuthenticationError

    if submission_id is not None and not re.fullmatch(r"[\w.-]+", submission_id):
        raise unknown_job(address, submission_id)
    try:
        yield
    except AuthenticationError as error:
        raise ClusterUnavailable(
            f"the Ray cluster at {address} refuses access ({_sentence(error)}): {TOKEN_HELP}"
        ) from error
    # requests' errors are OSErrors too.
    except OSError as error:
        raise NoAnswer(
            f"the Ray cluster at {address} stopped answering: {first_line(error)}; try again"
        ) from error
    except RuntimeError as error:
        if submission_id and "status code 404" in str(error):
            raise unknown_job(address, submission_id) from error
        # The server sends its traceback: the error is in the last line.
        last = str(error).strip().splitlines()[-1]
        raise ClusterUnavailable(f"the Ray cluster at {address} refuses: {last}") from error


def unknown_job(address: str, submission_id: str) -> ClusterUnavailable:
    """Return the error that says that a cluster has no such job."""
    return ClusterUnavailable(
        f"the Ray cluster at {address} knows no job {submission_id!r}: jobs are forgotten when "
        "a cluster restarts"
    )


def _check(address: str) -> None:
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        has_password = bool(parts.username or parts.password)
    except ValueError:
        is_good, has_password = False, "@" in address
    if has_password:
        raise ClusterUnavailable(f"a cluster's address holds no user or password: {TOKEN_HELP}")
    if not is_good:
        raise ClusterUnavailable(
            f"address {address!r} is not http://HOST:PORT, such as http://10.0.0.5:8265"
        )


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return a call's result; TimeoutError if it takes longer.

    Its thread then ends with the process. The timeout of requests is that of one read, which a
    server that trickles never exceeds.
    """
    future = Future[T]()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future.result(seconds)


def _probe(address: str) -> None:
    """Raise ClusterUnavailable if no Ray answers; another server never gets the token."""
    prepare_environment(address)
    import requests

    url = f"{address.rstrip('/')}/api/version"
    try:
        answer = _within(2 * ANSWER_S, lambda: requests.get(url, timeout=ANSWER_S))
        is_ray = answer.status_code in {401, 403} or "ray_version" in answer.json()
    except requests.JSONDecodeError:
        is_ray = False
    except requests.exceptions.SSLError as error:
        raise ClusterUnavailable(
            f"{address} does not speak https, or its certificate is not trusted; try http:// "
            "through an SSH tunnel"
        ) from error
    # ValueError: a host's name that is too long.
    except (requests.RequestException, TimeoutError, ValueError) as error:
        raise NoAnswer(
            f"no Ray cluster answers at {address}: start one, or {DASHBOARD_HELP}"
        ) from error
    if not is_ray:
        raise ClusterUnavailable(f"the program at {address} is not a Ray cluster: {DASHBOARD_HELP}")


@contextmanager
def _named_for_ray(address: str) -> Generator[None]:
    """Make Ray's client use `address`: it prefers RAY_ADDRESS to its argument (ray 2.60)."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _sentence(error: Exception) -> str:
    # Ray appends a paragraph of advice to the sentence.
    return re.sub(r"^Authentication \w+: ", "", first_line(error)).split(". ")[0].rstrip(".")
