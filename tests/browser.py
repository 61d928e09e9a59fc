"""A headless Chromium driven through its debugging protocol with the standard library alone.

with Browser.find() as browser:                         # None instead of a browser when there is none
    page = browser.open("report.html", javascript=True)
    page.console, page.requests, page.text()            # messages, addresses asked for, the words of the page
    page.screenshot("page.png", width=1280)
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
PATIENCE = 60.0  # seconds


class Socket:
    """A WebSocket as far as the debugging protocol needs one: text messages, whole or in parts."""

    def __init__(self, address: str) -> None:
        host, _, path = address.removeprefix("ws://").partition("/")
        name, _, port = host.partition(":")
        self._socket = socket.create_connection((name, int(port)), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._socket.recv(4096)
        self._rest = self._rest.split(b"\r\n\r\n", 1)[1]

    def send(self, text: str) -> None:
        """One masked text frame."""
        payload, mask = text.encode(), os.urandom(4)
        size = len(payload)
        head = (
            bytes([0x81, 0x80 | size])
            if size < 126
            else struct.pack("!BBH", 0x81, 0xFE, size)
            if size < 65536
            else struct.pack("!BBQ", 0x81, 0xFF, size)
        )
        repeated = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        self._socket.sendall(head + mask + masked)

    def receive(self) -> str:
        """The next text message."""
        whole = b""
        while True:
            first, second = self._read(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
            whole += self._read(size)
            if first & 0x80:
                return whole.decode()

    def wait(self, seconds: float) -> None:
        """Set how long a read may take."""
        self._socket.settimeout(max(0.01, seconds))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        while len(self._rest) < size:
            more = self._socket.recv(1 << 20)
            if not more:
                raise ConnectionError("the browser hung up")
            self._rest += more
        out, self._rest = self._rest[:size], self._rest[size:]
        return out


@dataclass
class Tab:
    """One open page.

    Attributes:
        console: messages of the console, errors and violations of the content policy, as "level: text".
        requests: every address the page asked for, itself included.
    """

    socket: Socket
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _last: int = 0

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """The answer to one command of the protocol; events that arrive meanwhile are noted."""
        self._last += 1
        self.socket.wait(PATIENCE)
        self.socket.send(json.dumps({"id": self._last, "method": method, "params": values}))
        while True:
            message = json.loads(self.socket.receive())
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self._note(message)

    def until(self, event: str) -> None:
        """Wait for an event."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = json.loads(self.socket.receive())
            self._note(message)
            if message.get("method") == event:
                return
        raise TimeoutError(event)

    def settle(self, seconds: float = 0.4) -> None:
        """Take in events for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.wait(left)
            try:
                self._note(json.loads(self.socket.receive()))
            except TimeoutError:
                return

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression (the debugger may run it where the page's own scripts are off)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def html(self) -> str:
        """The document as it is now."""
        node = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        return str(self.call("DOM.getOuterHTML", nodeId=node)["outerHTML"])

    def text(self) -> str:
        """The words that are visible."""
        return str(self.run("document.body.innerText"))

    def key(self, name: str) -> None:
        """Press and release a key such as "ArrowRight" or "Escape"."""
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                windowsVirtualKeyCode=codes.get(name, 0),
                **text,
            )

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Set the window's size and the preferred colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def screenshot(
        self, path: str | Path, *, width: int = 1280, height: int = 900, dark: bool = False, whole: bool = False
    ) -> Path:
        """A PNG of the window, or of the whole page; lazy pictures are loaded first where scripts run."""
        self.look(width=width, height=height, dark=dark)
        self.settle(0.3)
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
            shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        else:
            shot = self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))
        return Path(path)

    def print_pdf(self, path: str | Path) -> Path:
        """The page on paper."""
        answer = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        Path(path).write_bytes(base64.b64decode(answer["data"]))
        return Path(path)

    def _note(self, message: dict[str, Any]) -> None:
        """Keep what an event says."""
        values = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                words = " ".join(str(arg.get("value", arg.get("description", ""))) for arg in values["args"])
                self.console.append(f"{values['type']}: {words}")
            case "Runtime.exceptionThrown":
                details = values["exceptionDetails"]
                self.console.append(f"error: {details.get('exception', {}).get('description', details['text'])}")
            case "Log.entryAdded":
                self.console.append(f"{values['entry']['level']}: {values['entry']['text']}")
            case "Network.requestWillBeSent":
                self.requests.append(values["request"]["url"])


class Browser:
    """A running Chromium with an empty profile; ends with the ``with`` block."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        command: Sequence[str] = (program, *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank")
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._port = self._wait_for_port()
        self._tabs: list[Tab] = []

    @classmethod
    def find(cls) -> Browser | None:
        """A browser, or nothing where none of ``NAMES`` is on the PATH."""
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        return cls(program) if program else None

    def open(self, file: str | Path, javascript: bool = True, fragment: str = "") -> Tab:
        """A local file in a new tab, loaded."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with plain.open(request, timeout=PATIENCE) as answer:
            tab = Tab(Socket(json.loads(answer.read())["webSocketDebuggerUrl"]))
        self._tabs.append(tab)
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            tab.call(f"{domain}.enable")
        if not javascript:
            tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.call("Page.navigate", url=Path(file).resolve().as_uri() + fragment)
        tab.until("Page.loadEventFired")
        tab.settle()
        return tab

    def close(self) -> None:
        """End the browser and remove its profile."""
        for tab in self._tabs:
            tab.socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._folder.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_for_port(self) -> int:
        """The port of the debugger, which the browser writes into its profile."""
        file, end = Path(self._folder.name, "DevToolsActivePort"), time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if file.is_file() and (lines := file.read_text().splitlines()):
                return int(lines[0])
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        self._process.kill()
        self._folder.cleanup()
        raise RuntimeError("the browser did not start")
