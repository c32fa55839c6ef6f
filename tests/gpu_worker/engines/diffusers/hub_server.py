"""A hub on loopback: as much of its API as a download needs, and its bad days."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class Repository:
    """One repository: its commits, the newest last."""

    commits: dict[str, Mapping[str, bytes]]
    gated: bool = False
    private: bool = False
    token: str = "hf_right"

    @property
    def newest(self) -> str:
        return list(self.commits)[-1]


@dataclass
class Hub:
    """What it has, what it is asked, and what goes wrong with it."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # paths
    tokens: set[str] = field(default_factory=set)  # that were sent
    cut_off: dict[str, int] = field(default_factory=dict)  # file: how many times it breaks off in the middle
    damaged: set[str] = field(default_factory=set)  # files whose bytes are changed on the way
    status: int = 0  # that everything is answered with, where it isn't 0

    def fetched(self) -> set[str]:
        """The files that were asked for."""
        return {path.split("/resolve/")[1].partition("/")[2] for path in self.asked if "/resolve/" in path}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Quiet."""

    def _answer(self) -> None:
        hub, path = self.server.hub, unquote(self.path.partition("?")[0])
        hub.asked.append(path)
        if self.headers.get("Authorization"):
            hub.tokens.add(self.headers["Authorization"])
        if hub.status:
            self._send(hub.status, b"{}")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self._api(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups())
        else:
            self._send(404, b"{}")

    def _repository(self, name: str, *, files: bool) -> Repository | None:
        """None: refused, and answered so. What a gated repository holds may be known, its files may not."""
        one = self.server.hub.repositories.get(name)
        may = one is not None and self.headers.get("Authorization") == f"Bearer {one.token}"
        if one is None or (one.private and not may):
            self._send(401 if one else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif one.gated and files and not may:
            self._send(
                403 if self.headers.get("Authorization") else 401, b"{}", {"X-Error-Code": "GatedRepo"}
            )
        else:
            return one
        return None

    def _commit(self, one: Repository, revision: str) -> str | None:
        commit = one.newest if revision == "main" else revision
        if commit not in one.commits:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def _api(self, name: str, what: str, revision: str) -> None:
        one = self._repository(name, files=False)
        commit = self._commit(one, revision) if one else None
        if one is None or commit is None:
            return
        if what == "revision":
            self._send(200, json.dumps({"id": name, "sha": commit, "siblings": []}).encode())
            return
        listing = [listed(path, content) for path, content in one.commits[commit].items()]
        self._send(200, json.dumps(listing).encode())

    def _file(self, name: str, revision: str, file: str) -> None:
        one = self._repository(name, files=True)
        commit = self._commit(one, revision) if one else None
        if one is None or commit is None:
            return
        content = one.commits[commit].get(file)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest() if is_large(file) else git_sha1(content)
        head = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        self._send_file(file, content, head)

    def _send_file(self, file: str, content: bytes, head: dict[str, str]) -> None:
        hub = self.server.hub
        if file in hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:] if not is_large(file) else content[:-1] + b"?"
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(found[1])
            head["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if self.command == "GET" and hub.cut_off.get(file, 0):
            hub.cut_off[file] -= 1
            self._head(206 if start else 200, len(body), head)
            self.wfile.write(body[: max(1, len(body) // 2)])
            self.close_connection = True
        else:
            self._send(206 if start else 200, body, head)

    def _send(self, status: int, body: bytes, head: Mapping[str, str] | None = None) -> None:
        self._head(status, len(body), head or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, head: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **head}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        hub.url = f"http://127.0.0.1:{self.server_port}"


def is_large(file: str) -> bool:
    """Whether git keeps a pointer to it only."""
    return file.endswith((".safetensors", ".bin", ".onnx"))


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def listed(file: str, content: bytes) -> dict[str, object]:
    """A file as the hub lists it."""
    entry: dict[str, object] = {
        "type": "file", "path": file, "size": len(content), "oid": git_sha1(content),
    }  # fmt: skip
    if is_large(file):
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    server = Server(hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
