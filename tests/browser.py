"""A real browser, driven through its debugging pipe: Debian's Chromium, without a window and without a network.

Speaks the DevTools protocol over two pipes (`--remote-debugging-pipe`: JSON, each ended by NUL), so that no port is
opened and nothing is installed. Every wait is for something that the browser says, with a time limit.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.programs import find_program

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage", "--mute-audio",
    "--no-default-browser-check", "--hide-scrollbars", "--force-device-scale-factor=1", "--lang=en-GB",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe",
)  # fmt: skip
TIMEOUT_S = 60.0


class Browser:
    """One process. `tab` opens pages in it."""

    def __init__(self, profile: Path) -> None:
        """Starts it, with a profile of its own; raises ProgramMissing."""
        program = find_program("chromium")
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()

        # It reads from 3 and writes to 4; with other numbers in between these are not closed or taken by mistake.
        to_child, from_child = (_moved(descriptor) for descriptor in (to_child, from_child))
        place = f'exec "$@" 3<&{to_child} 4>&{from_child} {to_child}<&- {from_child}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", place, "chromium", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TZ": "UTC", "LANG": "en_GB.UTF-8"},
            pass_fds=(to_child, from_child),
        )
        os.close(to_child)
        os.close(from_child)
        self._number = 0
        self._pending = bytearray()
        self._events: list[dict[str, Any]] = []

    def close(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self.call("Browser.close")
        os.close(self._out)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command and its answer. Events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._events.append(answer)

    def event(self, method: str, session: str) -> dict[str, Any]:
        """The next event of this kind, or one that has come already."""
        while True:
            for place, event in enumerate(self._events):
                if event.get("method") == method and event.get("sessionId") == session:
                    return self._events.pop(place)["params"]
            self._events.append(self._read())

    def events(self, method: str) -> list[dict[str, Any]]:
        """All of this kind that have come and were not asked for."""
        return [event["params"] for event in self._events if event.get("method") == method]

    def _read(self) -> dict[str, Any]:
        limit = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._in], [], [], max(0.0, limit - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser says nothing")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise OSError("the browser has ended")
            self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)

    @contextlib.contextmanager
    def tab(self, *, width: int = 1280, height: int = 800, dark: bool = False, scripts: bool = True) -> Iterator["Tab"]:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        tab.call("Page.enable")
        tab.call("Network.enable")
        tab.call("Log.enable")
        tab.call("Runtime.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        tab.call("Emulation.setEmulatedMedia", features=features)
        tab.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        try:
            yield tab
        finally:
            self.call("Target.closeTarget", targetId=target)


def _moved(descriptor: int) -> int:
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 60)
    os.close(descriptor)
    return high


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def open(self, url: str) -> None:
        """Load a page and wait until all that it needs is there."""
        self.call("Page.navigate", url="about:blank")
        self._browser.event("Page.loadEventFired", self._session)
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer["errorText"]
        self._browser.event("Page.loadEventFired", self._session)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it gives."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Wait until an expression is true."""
        failed = json.dumps(f"waited in vain for {condition}")
        return self.run(
            "new Promise((resolve, reject) => { const end = performance.now() + 30000; const look = () => {"
            f"const value = ({condition}); if (value) resolve(value);"
            f" else if (performance.now() > end) reject(new Error({failed})); else setTimeout(look, 5); }}; look(); }})"
        )

    def press(self, key: str) -> None:
        codes = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "End": 35, "Home": 36, "Escape": 27, "Tab": 9}
        code = codes.get(key, ord(key[0].upper()))
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        place = self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def loaded(self) -> None:
        """Wait for the page that a click leads to."""
        self._browser.event("Page.loadEventFired", self._session)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def faults(self) -> list[str]:
        """What the browser complained about: errors of scripts, and what a policy stopped."""
        mine = [event for event in self._browser._events if event.get("sessionId") == self._session]
        logged = [event["params"]["entry"]["text"] for event in mine if event["method"] == "Log.entryAdded"]
        thrown = [str(event["params"]) for event in mine if event["method"] == "Runtime.exceptionThrown"]
        return logged + thrown

    def requests(self) -> list[str]:
        """Every URL that was asked for."""
        mine = [event for event in self._browser._events if event.get("sessionId") == self._session]
        return [e["params"]["request"]["url"] for e in mine if e["method"] == "Network.requestWillBeSent"]
