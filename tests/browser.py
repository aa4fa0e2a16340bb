"""A headless Chromium for tests, driven by its DevTools protocol."""

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

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""None where there is no browser: then tests that need one are skipped."""


class Page:
    """One tab, or the browser itself, which opens tabs. What a script throws is raised here."""

    def __init__(self, connection: ClientConnection, target: str = "", session: str = "") -> None:
        self._connection = connection
        self._target = target
        self._session = session
        self._number = 0

    def tab(self, url: str) -> Page:
        """A new tab with this address."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self._connection, target, session)
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
            if answer.get("id") == self._number and answer.get("sessionId", "") == self._session:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it comes to."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until the expression is true; the time only guards against a hang."""
        end = time.monotonic() + 20
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"waited in vain until {script}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def type(self, text: str) -> None:
        """As on a keyboard, into what has the focus; "\\n" is the enter key."""
        for character in text:
            key = {"key": "Enter", "text": "\r"} if character == "\n" else {"key": character, "text": character}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **key)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key["key"])


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with nothing in it, whose files are in `folder`; gives the page that opens others."""
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
