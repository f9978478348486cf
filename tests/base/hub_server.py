"""A hub of one model on this machine: the little of its protocol that a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse


class Hub(ThreadingHTTPServer):
    """Serves org/model; `revisions` maps a branch, tag or commit to (commit, folder)."""

    def __init__(self, revisions: dict[str, tuple[str, Path]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.revisions = revisions
        self.downloaded: list[str] = []
        """Files whose bytes were sent, in order."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is its own."""

    def _answer(self, *, body: bool) -> None:
        parts = [unquote(part) for part in urlparse(self.path).path.strip("/").split("/")]
        if parts[:4] == ["api", "models", "org", "model"] and parts[4] == "tree":
            return self._tree(parts[5])
        if parts[:3] == ["org", "model", "resolve"]:
            return self._file(parts[3], "/".join(parts[4:]), body=body)
        return self._send(404, {}, b"")

    def _tree(self, revision: str) -> None:
        _, folder = self.server.revisions[revision]
        files = [
            {
                "type": "file",
                "path": str(file.relative_to(folder)),
                "size": file.stat().st_size,
                "oid": _etag(file),
            }
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]
        self._send(200, {"Content-Type": "application/json"}, json.dumps(files).encode())

    def _file(self, revision: str, name: str, *, body: bool) -> None:
        if revision not in self.server.revisions:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        commit, folder = self.server.revisions[revision]
        if not (folder / name).is_file():
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self._send(404, headers, b"")
        if body:
            self.server.downloaded.append(name)
        data = (folder / name).read_bytes()
        headers = {"ETag": f'"{_etag(folder / name)}"', "X-Repo-Commit": commit}
        return self._send(200, headers, data, body=body)

    def _send(self, code: int, headers: dict[str, str], data: bytes, *, body: bool = True) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answers from a thread of its own until the block ends."""
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
