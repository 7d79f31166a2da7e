"""The token of Rays that are started here: readable by this user alone."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def protect_token() -> None:
    """Make the token that a local Ray will use, unless the environment names one or turns it off.

    Ray itself writes `~/.ray/auth_token` for everybody to read (ray 2.60), and whoever has it runs
    code as this user. One that it left so is made private. A home that cannot be written is left
    to Ray.
    """
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if named or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
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


def _make_private(path: Path, mode: int) -> None:
    """Remove other users' permissions from this user's files."""
    status = path.lstat()
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(mode)
