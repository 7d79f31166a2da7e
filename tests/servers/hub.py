"""A hub on the loopback interface: what huggingface_hub 2.4 asks of one, for one repo's folder."""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Serves a folder as OWNER/NAME at one commit; counts the files that are fetched."""

    daemon_threads = True

    def __init__(self, folder: Path, *, repo: str, commit: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.repo, self.commit = folder, repo, commit
        self.requests: Counter[str] = Counter()
        """Requests by method and path."""
        self.gets: Counter[str] = Counter()
        """Files that were sent, by name; a part of one counts."""
        self.stall_at: str | None = None
        """The file whose first GET stops half way until `go_on`."""
        self.stalled, self.go_on = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.server_port}"

    def files(self) -> dict[str, Path]:
        """Return the repo's files by name."""
        paths = (p for p in sorted(self.folder.rglob("*")) if p.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was killed."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve in a thread until the block ends."""
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Write no access log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requests[f"{self.command} {path}"] += 1
        revision = f"(?:main|{hub.commit})"
        if re.fullmatch(f"/api/models/{hub.repo}(/revision/{revision})?", path):
            siblings = [{"rfilename": name} for name in hub.files()]
            self._json({"id": hub.repo, "sha": hub.commit, "siblings": siblings, "private": False})
        elif re.fullmatch(f"/api/models/{hub.repo}/tree/{revision}", path):
            self._json([_entry(name, file) for name, file in hub.files().items()])
        elif found := re.fullmatch(f"/{hub.repo}/resolve/{revision}/(.+)", path):
            self._file(found[1])
        else:
            self.send_error(404)

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._end_with(body)

    def _file(self, name: str) -> None:
        hub = self.server
        if name not in hub.files():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", hub.commit)
            self._end_with(b"")
            return
        body = hub.files()[name].read_bytes()
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", hub.commit)
        self.send_header("Accept-Ranges", "bytes")
        if self.command == "GET":
            hub.gets[name] += 1
        self._end_with(body[first:], stalls=name == hub.stall_at)

    def _end_with(self, body: bytes, *, stalls: bool = False) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if stalls and not self.server.stalled.is_set():
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.stalled.set()
            self.server.go_on.wait()
            return
        self.wfile.write(body)


def _entry(name: str, file: Path) -> dict[str, object]:
    body = file.read_bytes()
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(body)}
    entry["oid"] = hashlib.sha1(body).hexdigest()
    if file.suffix in {".safetensors", ".bin"}:
        digest = hashlib.sha256(body).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(body), "pointerSize": 134}
    return entry
