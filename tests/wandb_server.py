"""A stand-in for W&B's server on loopback: as much of its API as a run, an artifact and `wandb sync` ask."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "0" * 40
ENTITY = "clinic"


@dataclass
class Run:
    """One run as the server holds it; `upserts` counts what made or changed it, `history` are its lines."""

    name: str
    upserts: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)


@dataclass
class Artifact:
    """One version of an artifact; `collection` is its name, `files` its paths and bytes."""

    id: str
    collection: str
    type: str
    digest: str
    run: str
    committed: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


class WandbServer:
    """What arrived, and which requests fail.

    Attributes:
        runs: By id.
        artifacts: Every version.
        asked: Names of the GraphQL operations and paths, in order.
        errors: What was asked in a way that it does not know.
        faults: Part of a path or operation to the statuses that its next requests get; 0 drops the connection.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.artifacts: list[Artifact] = []
        self.stored: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.faults: dict[str, list[int]] = defaultdict(list)
        self.errors: list[str] = []
        self.url = ""

    def environment(self) -> dict[str, str]:
        """Return what a process needs to talk to this server and to nobody else."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_MODE": "online",
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
        }

    def fault(self, name: str) -> int | None:
        """Return the status that a request shall fail with, None where it shall not."""
        with self.lock:
            self.asked.append(name)
            for part, statuses in self.faults.items():
                if part in name and statuses:
                    return statuses.pop(0)
        return None

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """Answer one GraphQL operation."""
        with self.lock:
            method = getattr(self, f"_{operation}", None)
            return method(given) if method else {}

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """Take a part of a run's history and summary."""
        with self.lock:
            run = self.runs.setdefault(name, Run(name))
            for file, part in body.get("files", {}).items():
                lines = [json.loads(line) for line in part["content"]] if "jsonl" in file or "summary" in file else []
                if file == "wandb-history.jsonl":
                    run.history |= {part["offset"] + place: line for place, line in enumerate(lines)}
                elif file == "wandb-summary.json" and lines:
                    run.summary = lines[-1]
            if body.get("complete"):
                run.finished.append(body.get("exitcode", 0))

    def _Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "v", "entity": ENTITY, "username": "nurse", "email": "", "flags": "{}", "admin": False}
        return {"viewer": {**viewer, "teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    _QueryViewer = _Viewer

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _ServerInfo(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "latestLocalVersionInfo": None}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        held = run and {
            **self._bucket(run, given["project"]),
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(run.history[max(run.history)])] if run.history else []),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": run.attributes.get("tags"),
            "notes": "",
            "wandbConfig": json.dumps({"t": 1}),
        }
        project = given["project"]
        return {"model": {"id": "p", "name": project, "entity": {"id": "e", "name": ENTITY}, "bucket": held or None}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"].removeprefix("storage-")
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.upserts += 1
        if given.get("config"):
            run.config = json.loads(given["config"])
        if given.get("summaryMetrics"):
            run.summary = json.loads(given["summaryMetrics"])
        run.attributes |= {key: value for key, value in given.items() if value is not None and key != "config"}
        bucket = self._bucket(run, run.attributes.get("project") or "uncategorized")
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _bucket(self, run: Run, project: str) -> dict[str, Any]:
        return {
            "id": f"storage-{run.name}",
            "name": run.name,
            "displayName": run.attributes.get("displayName", run.name),
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": {"id": "p", "name": project, "entity": {"id": "e", "name": ENTITY}},
            "historyLineCount": len(run.history),
        }

    def _RunStoppedStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/put/run/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"markRunFilesUploaded": {"success": True}}

    def _ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["name"].partition(":")[0]
        types = [artifact.type for artifact in self.artifacts if artifact.collection == name]
        return {"project": {"artifact": {"artifactType": {"name": types[0]}} if types else None}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = given["input"]
        name = asked["artifactCollectionName"]
        same = [a for a in self.artifacts if a.collection == name and a.committed]
        found = next((a for a in same if a.digest == asked["digest"]), None)
        if found is None:  # the same files again are the same version
            found = Artifact(
                f"a{len(self.artifacts)}", name, asked["artifactTypeName"], asked["digest"], asked["runName"]
            )
            self.artifacts.append(found)
        latest = {"id": same[-1].id} if same else None
        state = "COMMITTED" if found.committed else "PENDING"
        return {
            "createArtifact": {
                "artifact": {"id": found.id, "state": state, "artifactSequence": {"latestArtifact": latest}}
            }
        }

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = [
            {
                "node": {
                    "name": asked["name"],
                    "storagePath": f"wandb_artifacts/{asked['name']}",
                    "uploadUrl": f"{self.url}/put/artifact/{asked['artifactID']}/{asked['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": asked["artifactID"]},
                }
            }
            for asked in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/put/manifest/{given['artifactID']}"
        return {
            "createArtifactManifest": {
                "artifactManifest": {"id": "m", "file": {"id": "f", "uploadUrl": url, "uploadHeaders": []}}
            }
        }

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "uploadUrl": f"{self.url}/put/manifest/unknown", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        (found,) = [artifact for artifact in self.artifacts if artifact.id == given["artifactID"]]
        found.committed = True
        return {"commitArtifact": {"artifact": {"id": found.id, "digest": found.digest}}}

    def put(self, path: str, body: bytes) -> None:
        """Take an uploaded file."""
        kind, owner, *rest = path.removeprefix("/put/").split("/", 2)
        with self.lock:
            if kind == "run":
                self.runs[owner].files[rest[0]] = body
            elif kind == "artifact":
                (found,) = [artifact for artifact in self.artifacts if artifact.id == owner]
                found.files[rest[0]] = body


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            if self.path == "/graphql":
                asked = json.loads(body)
                match = re.search(r"\b(?:query|mutation)\s+(\w+)", asked["query"])
                operation = match[1] if match else asked["query"][:40]
                if not self._failed(operation):
                    self._answer(operation, asked.get("variables") or {})
            elif self.path.endswith("/file_stream"):
                if not self._failed("file_stream"):
                    server.stream(self.path.split("/")[-2], json.loads(body))
                    self._send(200, b'{"exitcode": null, "limits": {}}')
            else:
                self._send(404, b"{}")

        def _answer(self, operation: str, given: dict[str, Any]) -> None:
            try:
                self._send(200, json.dumps({"data": server.answer(operation, given)}).encode())
            except (KeyError, ValueError) as error:  # asked for in a way that nobody has taught it
                server.errors.append(f"{operation}: {error!r} in {json.dumps(given)[:300]}")
                self._send(400, b"{}")

        def do_PUT(self) -> None:
            body = self._body()
            if not self._failed(self.path):
                server.put(self.path, body)
                self.send_response(200)
                self.send_header("ETag", base64.b64encode(hashlib.md5(body).digest()).decode())
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_GET(self) -> None:
            if not self._failed(self.path):
                self._send(200, b"{}")

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _failed(self, name: str) -> bool:
            status = server.fault(name)
            if status is None:
                return False
            if status:
                self._send(status, b"{}")
            else:
                self.close_connection = True
                self.connection.close()
            return True

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serving() -> Iterator[WandbServer]:
    """Serve on a free port of loopback."""
    server = WandbServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
