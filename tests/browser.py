"""A page in headless Chromium, over the DevTools protocol through a pipe: runs scripts in it and keeps its messages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--remote-debugging-pipe"),
)


class Browser:
    """One tab.

    Args:
        width: Of the window, in pixels.
        height: Likewise.
        dark: Whether it prefers dark.

    Attributes:
        messages: Errors and warnings of the console, uncaught exceptions, and addresses that were asked for.
    """

    def __init__(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        self.messages: list[str] = []
        self._size, self._dark = (width, height), dark
        self._number, self._buffer, self._session = 0, b"", ""
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        self._folder = tempfile.mkdtemp(prefix="vlmbench-chromium-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._in, self._out = ours_in, ours_out
        # Chromium reads from descriptor 3 and writes to 4. They are moved out of the way first.
        command = 'exec 8<&$0 9>&$1; exec 3<&8 4>&9; shift; exec "$@"'
        words = [CHROMIUM, *FLAGS, f"--user-data-dir={self._folder}", f"--window-size={self._size[0]},{self._size[1]}"]
        script = command.replace("$0", str(theirs_in)).replace("$1", str(theirs_out)).replace("shift; ", "")
        self._process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *words],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        scheme = "dark" if self._dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        width, height = self._size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        asked: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        number = self._number
        while True:
            told = self._next(time.monotonic() + 60)
            if told.get("id") == number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]
            self._note(told)

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a page and wait until it has loaded."""
        loaded: list[bool] = []
        self._loaded = loaded
        address = page.resolve().as_uri() + fragment
        self.call("Page.navigate", url=address)
        end = time.monotonic() + 60
        while not loaded:
            self._note(self._next(end))
        # The event may have been that of the page before.
        self.wait(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"]["exception"].get("description", told))
        return told["result"].get("value")

    def wait(self, script: str, seconds: float = 20) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds} s: {script}; {self.messages}")
            time.sleep(0.02)
        return value

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is in view, or the whole page, as PNG."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    def print(self, path: Path) -> None:
        """Write the printed page as PDF."""
        told = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(told["data"]))

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("Chromium does not answer")
            read = os.read(self._in, 1 << 20)
            if not read:
                raise RuntimeError("Chromium has ended")
            self._buffer += read
        told, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(told)

    def _note(self, told: dict[str, Any]) -> None:
        method, event = told.get("method"), told.get("params", {})
        notes: dict[str, Callable[[], str]] = {
            "Runtime.exceptionThrown": lambda: (
                f"exception: {event['exceptionDetails']['exception'].get('description')}"
            ),
            "Runtime.consoleAPICalled": lambda: (
                f"{event['type']}: {event['args']}" if event["type"] in ("error", "warning", "assert") else ""
            ),
            "Log.entryAdded": lambda: f"{event['entry']['level']}: {event['entry']['text']}",
            "Network.requestWillBeSent": lambda: (
                "" if event["request"]["url"].startswith(("file:", "data:", "blob:")) else event["request"]["url"]
            ),
        }
        if method == "Page.loadEventFired":
            self._loaded.append(True)
        elif method in notes and (note := notes[method]()):
            self.messages.append(note)
