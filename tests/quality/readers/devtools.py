"""A headless Chromium, driven over DevTools' own pipe: no driver and no package is needed."""

import base64
import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
PATIENCE = 60  # seconds


class Browser:
    """One page of a Chromium. What pages keep is in the folder `profile`, what they save in `downloads`."""

    def __init__(self, profile: Path, downloads: Path):
        pipes = os.pipe(), os.pipe()
        (to_browser, ours), (heard, from_browser) = ([fcntl.fcntl(e, fcntl.F_DUPFD, 10) for e in p] for p in pipes)
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        ends = [(os.POSIX_SPAWN_DUP2, to_browser, 3), (os.POSIX_SPAWN_DUP2, from_browser, 4)]
        close = [(os.POSIX_SPAWN_CLOSE, fd) for fd in (ours, heard)]
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.pid = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=[*close, *ends, *quiet])
        for fd in (*pipes[0], *pipes[1], to_browser, from_browser):
            os.close(fd)
        self.ours, self.heard = os.fdopen(ours, "wb", 0), os.fdopen(heard, "rb", 0)
        self.number, self.buffer, self.session = 0, b"", None
        self.thrown: list[str] = []
        self.saved = 0  # files that pages have saved whole; Chromium reserves a file's name before it has content
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        saving = {"behavior": "allow", "downloadPath": str(downloads), "eventsEnabled": True}
        self.call("Browser.setDownloadBehavior", **saving)
        self.resize(1280, 800)

    def call(self, method: str, **params: Any) -> dict:
        """A command's answer; of events on the way, errors that the page threw and files that it saved are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self.session
        self.ours.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                part = self.heard.read(2**20)
                assert part, f"Chromium ended before it answered {method}"
                self.buffer += part
            first, _, self.buffer = self.buffer.partition(b"\0")
            answer = json.loads(first)
            if answer.get("method") == "Runtime.exceptionThrown":
                details = answer["params"]["exceptionDetails"]
                self.thrown.append(details.get("exception", {}).get("description", details["text"]))
            if answer.get("method") == "Browser.downloadProgress":
                self.saved += answer["params"]["state"] == "completed"
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true in the page."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def open(self, path: Path) -> None:
        """Load a file, until its scripts have run."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait(f"location.href === {json.dumps(path.resolve().as_uri())} && document.readyState === 'complete'")

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """A screen of this size in CSS pixels; a phone's is touched and twice as dense."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1 + phone, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def key(self, key: str) -> None:
        """Press and release a key."""
        codes = {"Enter": 13, "Backspace": 8, "Tab": 9, "Escape": 27}
        text = {"text": "\r" if key == "Enter" else key} if key == "Enter" or len(key) == 1 else {}
        code = codes.get(key, ord(key[0].upper()))
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def drag(self, selector: str, dx: int, dy: int) -> None:
        """Drag with the mouse from the middle of an element."""
        place = "(({x, y, width: w, height: h}) => [x + w / 2, y + h / 2])"
        x, y = self.run(f"{place}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        steps = (("mousePressed", 0, 0, 1), ("mouseMoved", dx, dy, 1), ("mouseReleased", dx, dy, 0))
        for kind, right, down, held in steps:
            button = {"button": "left", "buttons": held, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x + right, y=y + down, **button)

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def save(self, selector: str) -> None:
        """Click on what saves one file, until the file is whole."""
        before, end = self.saved, time.monotonic() + PATIENCE
        self.click(selector)
        while self.saved == before:
            assert time.monotonic() < end, f"nothing was saved by {selector}"
            self.run("true")
            time.sleep(0.02)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser, so that what pages keep is on disk."""
        try:
            self.call("Browser.close")
        finally:
            end = time.monotonic() + PATIENCE
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.02)
            self.ours.close(), self.heard.close()
