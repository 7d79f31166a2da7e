"""Errors that a user can fix: one clear sentence, exit code 2, no traceback."""

import traceback

OWN_PACKAGES = ("schemas", "engine", "jobs", "cli", "dqf")


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or the error's type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def deepest(error: BaseException) -> BaseException:
    """Return the error that an error was raised from, and that one from, and so on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def unimportable(error: BaseException) -> str | None:
    """Return the package of others whose import raised an error; None: it was raised elsewhere."""
    package, is_importing = "", False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        is_importing = is_importing or frame.f_code.co_name == "<module>"
    return package if is_importing and package not in OWN_PACKAGES else None


class DqfError(Exception):
    """Base of every error whose message is shown without a traceback."""

    exit_code: int = 2
    """Exit code of the command line when this error ends a command."""
    has_lines: bool = False
    """Whether the message is of several lines, so that a newline is none of a user's text."""


class PlanError(DqfError):
    """A plan, a caption file or a flag that cannot be run as given."""


class UnknownComponent(DqfError):
    """A component name that the model does not have."""


class ModelUnavailable(DqfError):
    """A model or scorer that cannot be opened."""


class ClusterUnavailable(DqfError):
    """A Ray cluster that does not answer or refuses the token."""


class NotFinite(DqfError):
    """A number that is NaN or infinite where a network's output or a solution should be one."""


class StoreError(DqfError):
    """A run's folder that cannot be read or written."""


class QueryRefused(DqfError):
    """SQL that is not exactly one read-only SELECT statement, or that DuckDB rejects."""


class StatementRefused(QueryRefused):
    """SQL that DuckDB rejects, in its own words, which are lines."""

    has_lines = True


class ConceptError(DqfError):
    """A concept file or concept that cannot be edited as given."""


class TooManyFailures(DqfError):
    """A run in which so many units fail that it was stopped."""

    exit_code = 1


class Interrupted(DqfError):
    """A run that a signal has stopped."""

    exit_code = 143
