"""The token of Rays that are started here: readable by this user alone."""

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from engine.files import is_file, read_bytes
from schemas.errors import ClusterUnavailable
from schemas.printable import shown

TOKEN = re.compile(rb"[ -~]*[!-~][ -~]*\s*")
"""Bytes of a token; Ray ends the process for others, which no header may have."""
MOST_BYTES = 4096
TOKEN_HELP = "put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token"


def protect_token() -> None:
    """Make the token that a local Ray will use, unless the environment names one or turns it off.

    Ray itself writes `~/.ray/auth_token` for everybody to read (ray 2.60), and whoever has it runs
    code as this user. One that it left so is made private. A home that cannot be written is left
    to Ray.
    """
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if named or not _asks_for_token():
        return
    home = os.path.expanduser("~")
    if home == "~":  # of a user whom the machine does not know
        return
    path = Path(home, ".ray", "auth_token")
    with suppress(OSError):
        if not path.parent.is_symlink():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _make_private(path.parent, 0o700)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        except FileExistsError:
            _make_private(path, 0o600)


def check_token() -> None:
    """Raise ClusterUnavailable for a token of the environment, or of its file, that Ray cannot
    send."""
    if not _asks_for_token():
        return
    own = os.path.expanduser("~/.ray/auth_token")
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        place, content = "RAY_AUTH_TOKEN", os.fsencode(token)
    elif path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        place = f"the file of RAY_AUTH_TOKEN_PATH, {shown(path)},"
        try:
            content = read_bytes(Path(path), error=ClusterUnavailable, most=MOST_BYTES)
        except ClusterUnavailable as error:
            raise ClusterUnavailable(f"RAY_AUTH_TOKEN_PATH: {error}: {TOKEN_HELP}") from error
    elif is_file(own) and os.path.getsize(own):  # Ray writes an empty one itself
        place, content = own, read_bytes(Path(own), error=ClusterUnavailable, most=MOST_BYTES)
    else:
        return
    if not TOKEN.fullmatch(content):
        raise ClusterUnavailable(
            f"{place} holds no token: give one line of ASCII, or unset the variable for a local Ray"
        )


def _asks_for_token() -> bool:
    """Return whether the environment leaves Ray's tokens on."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"


def _make_private(path: Path, mode: int) -> None:
    """Remove other users' permissions from this user's files."""
    status = path.lstat()
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(mode)
