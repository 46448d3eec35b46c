"""A local HTTP server of plain files, and of records as Zenodo, figshare and Dataverse list them.

Faults by path: refused with a status, cut once in the middle, slow, without Range, served as another content. The
JSON has the fields of Zenodo's records API, figshare's PublicFile and Dataverse's native API, as their public
documentation and published answers show them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def zipped(files: dict[str, bytes], **settings) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **settings) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Files:
    """What the server has, and what it saw.

    Attributes:
        plain: Content by path.
        status: Path to the status with which it is refused.
        cut_after: Bytes after which a body breaks off, by path; once.
        slow: Seconds between two pieces of 16 KiB, by path.
        no_range: Paths of which only the whole is sent.
        encoded: Paths that are sent in gzip, whatever was asked for.
        busy: How often a path is still answered with 429, and `Retry-After: 7`.
        asked: (method, path, Range header) of each request.
        sent: Bytes of each GET's body, by path.
    """

    plain: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    no_range: set[str] = field(default_factory=set)
    encoded: set[str] = field(default_factory=set)
    busy: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    sent: dict[str, list[int]] = field(default_factory=dict)
    address: str = ""

    def serve(self) -> ThreadingHTTPServer:
        files = self

        class Handler(_Handler):
            pass

        Handler.files = files
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def gets(self) -> list[str]:
        return [path for method, path, _ in self.asked if method == "GET"]

    def zenodo(self, files: dict[str, bytes]) -> None:
        """Make record 77: `files` with key, size, checksum and links.self."""
        rows = []
        for name, data in files.items():
            path = f"/api/records/77/files/{name}/content"
            self.plain[path] = data
            row = {"id": "0-1", "key": name, "size": len(data), "checksum": f"md5:{md5(data)}"}
            rows.append({**row, "links": {"self": self.address + path}})
        self.plain["/api/records/77"] = json.dumps({"id": 77, "files": rows, "doi": "10.5281/zenodo.77"}).encode()
        self.plain["/records/77"] = b"<html>the record</html>"

    def figshare(self, files: dict[str, bytes]) -> None:
        """Make article 55 in version 2: name, size, computed_md5, download_url."""
        rows = []
        for number, (name, data) in enumerate(files.items()):
            path = f"/files/{number}"
            self.plain[path] = data
            row = {"id": number, "name": name, "size": len(data), "is_link_only": False, "computed_md5": md5(data)}
            rows.append({**row, "supplied_md5": md5(data), "download_url": self.address + path})
        self.plain["/v2/articles"] = json.dumps([{"id": 55, "doi": "10.6084/m9.figshare.55.v2"}]).encode()
        self.plain["/v2/articles/55/versions/2"] = json.dumps({"id": 55, "files": rows}).encode()

    def dataverse(self, files: dict[str, bytes], ingested: dict[str, tuple[str, bytes]]) -> None:
        """Make a dataset; `ingested` maps the name of a table as Dataverse has it to its original name and bytes."""
        rows: list[dict] = []
        for number, (name, data) in enumerate(files.items(), start=3172580):
            folder, _, base = name.rpartition("/")
            self.plain[f"/api/access/datafile/{number}"] = data
            file = {"id": number, "filename": base, "filesize": len(data), "contentType": "application/zip"}
            file |= {"md5": md5(data), "checksum": {"type": "MD5", "value": md5(data)}}
            rows.append(
                {"label": base, "restricted": False, **({"directoryLabel": folder} if folder else {}), "dataFile": file}
            )
        for number, (name, (original, data)) in enumerate(ingested.items(), start=3172680):
            self.plain[f"/api/access/datafile/{number}"] = data.replace(b",", b"\t")
            self.plain[f"/api/access/datafile/{number}?format=original"] = data
            file = {"id": number, "filename": name, "filesize": 1, "contentType": "text/tab-separated-values"}
            file |= {"originalFileFormat": "text/csv", "originalFileSize": len(data), "originalFileName": original}
            file |= {"md5": "0" * 32, "checksum": {"type": "MD5", "value": "0" * 32}, "tabularData": True}
            rows.append({"label": name, "restricted": False, "dataFile": file})
        answer = {"status": "OK", "data": {"id": 1, "latestVersion": {"versionNumber": 4, "files": rows}}}
        self.plain["/api/datasets/:persistentId"] = json.dumps(answer).encode()
        self.plain["/dataset.xhtml"] = b"<html>the dataset</html>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Files

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool):
        files, path = self.files, unquote(urlsplit(self.path).path).rstrip("/")
        if (whole := f"{path}?{urlsplit(self.path).query}") in files.plain:
            path = whole
        asked = self.headers.get("Range", "")
        files.asked.append((self.command, path, asked))
        status = files.status.get(path, 200 if path in files.plain else 404)
        if files.busy.get(path, 0) > 0:
            files.busy[path] -= 1
            status = 429
        data = files.plain.get(path, b"") if status == 200 else b"<html>log in</html>"
        headers = {"ETag": f'"{md5(data)}"', **({"Retry-After": "7"} if status == 429 else {})}
        if path in files.encoded:
            data = gzip.compress(data, mtime=0)
            headers["Content-Encoding"] = "gzip"
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        same = self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]
        if match and same and status == 200 and path not in files.no_range:
            status = 206
            headers["Content-Range"] = f"bytes {match[1]}-{len(data) - 1}/{len(data)}"
            data = data[int(match[1]) :]
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self._body(path, data)

    def _body(self, path: str, data: bytes):
        counted = self.files.sent.setdefault(path, [])
        counted.append(0)
        place, pause = len(counted) - 1, self.files.slow.get(path, 0.0)
        limit = self.files.cut_after.pop(path, len(data))
        try:
            for at in range(0, limit, 16_384):
                part = data[at : min(at + 16_384, limit)]
                self.wfile.write(part)
                self.wfile.flush()
                counted[place] += len(part)
                if pause:
                    threading.Event().wait(pause)
            if limit < len(data):
                self.close_connection = True
                self.connection.close()
        except OSError:
            self.close_connection = True
