"""A local HTTP server that answers as the hub does, for the endpoints that huggingface_hub asks, and for plain files.

Large files are redirected to another path, as the hub redirects to its storage; the server counts the bytes that it
sends, cuts a connection where it is told to, and can serve wrong bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

LARGE = 1000  # bytes; as if it were the hub's limit for files outside its large storage


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """One repository: files by revision."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    kind: str = "model"
    gated: bool = False

    def describe(self, repo_id: str) -> dict:
        siblings = []
        for name, data in self.files.items():
            row = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if len(data) > LARGE:
                row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(row)
        return {"id": repo_id, "sha": self.commit, "siblings": siblings, "gated": self.gated, "tags": []}

    def tree(self) -> list[dict]:
        rows = []
        for name, data in self.files.items():
            row = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
            if len(data) > LARGE:
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            rows.append(row)
        return rows


@dataclass
class Hub:
    """What the server has, and what it saw.

    Attributes:
        repositories: By `owner/name`.
        plain: Files by path, served as they are.
        cut_after: Bytes after which the body of a file breaks off, by file name; each cut happens once.
        corrupt: Names of files of which the first byte is wrong.
        slow: Seconds between two pieces of a body, by file name.
        sent: Bytes of each GET's body, by file name.
        asked: (method, path, Range header) of each request.
        consenting: Tokens that may read gated repositories.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    slow: dict[str, float] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    consenting: set[str] = field(default_factory=set)
    storage_saw_token: bool = False
    address: str = ""

    def serve(self) -> ThreadingHTTPServer:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def add_folder(self, repo_id: str, folder: Path, **settings) -> Repository:
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        self.repositories[repo_id] = Repository({**files, ".gitattributes": b"*", "README.md": b"# card"}, **settings)
        return self.repositories[repo_id]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool):
        path = unquote(self.path.split("?")[0])
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if path == "/":
            return self._send(200, b"hub", body)
        if path.startswith("/storage/"):
            self.hub.storage_saw_token |= "authorization" in {key.lower() for key in self.headers}
            _, _, repo_id, name = path.split("/", 3)
            return self._file(self.hub.repositories[repo_id.replace("--", "/")].files[name], name, body, {})
        if path in self.hub.plain:
            return self._file(self.hub.plain[path], path.rsplit("/", 1)[-1], body, {})
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(match[1], match[2], match[3], body)
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self._send(200, json.dumps(self.hub.repositories[match[2]].tree()).encode(), body)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[2], match[3], match[4], body)
        return self._send(404, b"", body)

    def _found(self, repo_id: str, revision: str | None, body: bool) -> Repository | None:
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            # As the hub does: without a token nobody is told whether the repository is not there or private.
            code = 404 if self.headers.get("authorization") else 401
            self._send(code, b"{}", body, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        if revision not in (None, "main", repository.commit):
            self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            return None
        return repository

    def _info(self, kind: str, repo_id: str, revision: str | None, body: bool):
        repository = self._found(repo_id, revision, body)
        if repository is not None and f"{repository.kind}s" != kind:
            return self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        if repository is not None:
            self._send(200, json.dumps(repository.describe(repo_id)).encode(), body)

    def _resolve(self, repo_id: str, revision: str, name: str, body: bool):
        repository = self._found(repo_id, revision, body)
        if repository is None:
            return
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if repository.gated and token not in self.hub.consenting:
            return self._send(403 if token else 401, b"", body, {"X-Error-Code": "GatedRepo"})
        if name not in repository.files:
            return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
        data = repository.files[name]
        headers = {"X-Repo-Commit": repository.commit}
        if len(data) <= LARGE:
            return self._file(data, name, body, {**headers, "ETag": f'"{git_sha1(data)}"'})
        linked = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        # Another host name, as the hub's storage has one: a token must not follow.
        place = self.hub.address.replace("127.0.0.1", "localhost")
        location = f"{place}/storage/{repo_id.replace('/', '--')}/{name}"
        return self._send(302, b"", body, {**headers, **linked, "Location": location})

    def _file(self, data: bytes, name: str, body: bool, headers: dict):
        if name in self.hub.corrupt:
            data = bytes([data[0] ^ 255]) + data[1:]
        start, status = 0, 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._send(status, data[start:], body, {**headers, "Accept-Ranges": "bytes"}, name)

    def _send(self, status: int, data: bytes, body: bool, headers: dict | None = None, name: str = ""):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not body:
            return
        limit = self.hub.cut_after.pop(name, None)
        counted = self.hub.sent.setdefault(name, [])
        counted.append(0)
        place, pause = len(counted) - 1, self.hub.slow.get(name, 0.0)
        piece = 16_384 if pause else len(data) or 1
        try:
            for at in range(0, len(data), piece):
                part = data[at : at + piece]
                if limit is not None and at + len(part) > limit:
                    part = part[: max(0, limit - at)]
                self.wfile.write(part)
                self.wfile.flush()
                counted[place] += len(part)
                if limit is not None and counted[place] >= limit:
                    self.close_connection = True
                    self.connection.close()
                    return
                if pause:
                    threading.Event().wait(pause)
        except OSError:
            self.close_connection = True
