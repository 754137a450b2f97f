"""A real Chromium, driven by its DevTools protocol over two pipes (no test module)."""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT_S = 40.0
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""An address came or went on this machine: no fault of the page's."""
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}


class Browser:
    """One page of one browser, with a profile of its own; only this machine can be reached from it."""

    def __init__(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        assert BROWSER is not None
        self._profile = tempfile.mkdtemp(prefix="fofoca-browser-")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        script = f'exec 3<&{commands} 4>&{answers}; exec "$@"'
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        words += [f"--user-data-dir={self._profile}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        words += [f"--window-size={width},{height}", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", BROWSER, *words, "about:blank"],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._from, selectors.EVENT_READ)
        self._buffer = bytearray()
        self._count = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self._dropped = 0
        self._attach()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=20)
        self._selector.close()
        os.close(self._to)
        os.close(self._from)
        deadline = time.monotonic() + TIMEOUT_S
        while os.path.exists(self._profile):  # its helpers may write there until they have died, too
            shutil.rmtree(self._profile, ignore_errors=True)
            assert time.monotonic() < deadline, f"{self._profile} can't be removed"

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._note(answer)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert self._selector.select(max(0.0, deadline - time.monotonic())), "the browser does not answer"
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser is gone"
            self._buffer += piece
        message, _, rest = bytes(self._buffer).partition(b"\0")
        self._buffer = bytearray(rest)
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what a developer would see in the console as trouble: errors, and what the policy forbade."""
        told = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and NETWORK_CHANGED in told["entry"]["text"]:
            self._dropped += 1
        elif event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Load a page whole: what was on its way while another test made a bridge is dropped by the browser."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            before = self._dropped
            failure = self.call("Page.navigate", url=url).get("errorText", "")
            if failure != NETWORK_CHANGED:
                self.until("document.readyState === 'complete'")
                if self._dropped == before:
                    return
            assert time.monotonic() < deadline, f"{url} never came whole: {failure}"
            self.call("Page.navigate", url="about:blank")  # to the same address would only be a jump within the page

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript; run by the debugger, so the page's policy does not bind it."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def text(self, selector: str = "body") -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def until(self, condition: str, timeout_s: float = TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := self.run(condition)):
            assert time.monotonic() < deadline, f"never true: {condition}; the page says: {self.text()}"
            time.sleep(0.05)
        return value

    def until_text(self, wanted: str, selector: str = "main") -> None:
        self.until(f"(document.querySelector({json.dumps(selector)})?.innerText ?? '').includes({json.dumps(wanted)})")

    def click(self, selector: str) -> None:
        self.until(f"!!document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        code = KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **extra)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
