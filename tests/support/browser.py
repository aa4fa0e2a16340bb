"""A headless Chromium for tests, driven by its DevTools protocol.

Why no library: Playwright 1.65 was tried. It leaves 50 lines of this file, but a wait helper of our own must stay,
because its `wait_for_function` needs `eval`, which the policy of the docs page forbids. The tests take half as long
again, and the install grows by 170 MB (a Node runtime). Selenium needs a second binary, chromium-driver, and one HTTP
request per command.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The path of the browser, or None."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; Debian: apt install chromium")

KEYS: dict[str, dict[str, Any]] = {
    "\n": {"key": "Enter", "text": "\r", "windowsVirtualKeyCode": 13},
    "\t": {"key": "Tab", "windowsVirtualKeyCode": 9},
    "\x1b": {"key": "Escape", "windowsVirtualKeyCode": 27},
}


class Page:
    """One tab, or the browser itself, which opens tabs. An error of a script is raised as AssertionError."""

    def __init__(self, connection: ClientConnection, target: str = "", session: str = "") -> None:
        self._connection = connection
        self._target = target
        self._session = session
        self._number = 0
        self.events: list[dict[str, Any]] = []
        """The events of this tab: requests, console messages, violations of the content security policy."""

    def tab(self, url: str) -> Page:
        """Open a new tab with this address."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self._connection, target, session)
        for domain in ("Network", "Log", "Runtime"):
            page.ask(f"{domain}.enable")
        page.ask("Page.navigate", url=url)
        page.until("document.readyState == 'complete' && location.href != 'about:blank'")
        return page

    def close(self) -> None:
        Page(self._connection).ask("Target.closeTarget", targetId=self._target)

    def ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=20))
            if "method" in answer and answer.get("sessionId", "") == self._session:
                self.events.append(answer)
            if answer.get("id") == self._number and answer.get("sessionId", "") == self._session:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        """Return the value of an expression; of a promise, its result."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until the expression is true; the time only guards against a hang."""
        end = time.monotonic() + 20
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"timed out waiting until {script}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def type(self, text: str) -> None:
        """Type on the keyboard into the focused element; newline is the Enter key, tab the Tab key."""
        for character in text:
            key = KEYS.get(character, {"key": character, "text": character})
            self.ask("Input.dispatchKeyEvent", type="keyDown", **key)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **{**key, "text": ""})

    def choose_files(self, selector: str, *files: Path) -> None:
        """Choose these files in a file input."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def problems(self, url: str) -> list[Any]:
        """Requests to other servers than `url`, errors in the console, and violations of the policy."""
        self.run("0")  # a round trip: all earlier events have arrived
        sent = [
            each["params"]["request"]["url"] for each in self.events if each["method"] == "Network.requestWillBeSent"
        ]
        elsewhere = [each for each in sent if not each.startswith((url, "data:", "blob:"))]
        thrown = [each for each in self.events if each["method"] == "Runtime.exceptionThrown"]
        logged = [each for each in self.events if each["method"] == "Log.entryAdded"]
        return elsewhere + thrown + [each for each in logged if each["params"]["entry"]["source"] != "network"]

    def look(self, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Set the size of the screen in CSS pixels, and the preferred colour scheme: "light" or "dark"."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Start a browser with an empty profile in `folder`; yield the page that opens tabs."""
    assert CHROMIUM is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    process = subprocess.Popen(
        [CHROMIUM, *flags, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        found = next(match for line in process.stderr if (match := re.search(r"ws://\S+", line)))
        with connect(found[0], max_size=None, compression=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(20)
        if process.stderr is not None:
            process.stderr.close()
