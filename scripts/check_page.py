#!/usr/bin/env python3
"""Opens a page in headless Chromium, light and dark, wide and narrow, and fails on anything that is wrong with it.

    python scripts/check_page.py out/report.html [--screenshots DIR [--first-screen]]

Wrong is: a message of the console, a request to anywhere else, a page wider than the window, texts of a picture that
lie on one another. Needs Python alone, and Chromium or Chrome: `apt-get install chromium` on Debian, or its path in
$CHROMIUM.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
WIDTHS = {"wide": 1280, "narrow": 390, "narrowest": 360}
TIMEOUT = 60.0

TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# A picture is an image, and its texts are found where it stands in its place as a part of the page.
OVERLAPS = """
[...document.querySelectorAll("img.figure")].flatMap((image) => {
  const holder = document.createElement("div");
  holder.innerHTML = decodeURIComponent(image.src.slice(image.src.indexOf(",") + 1));
  const svg = holder.querySelector("svg");
  svg.style.width = "100%";
  svg.style.height = "auto";
  image.replaceWith(svg);
  const texts = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
  const frame = svg.getBoundingClientRect();
  const found = [];
  texts.forEach(([a, p], i) => {
    if (p.left < frame.left - 1 || p.right > frame.right + 1 || p.top < frame.top - 1 || p.bottom > frame.bottom + 1)
      found.push(`${JSON.stringify(a)} is cut off in ${image.alt}`);
    for (const [b, q] of texts.slice(i + 1)) {
      const width = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const height = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      // Boxes of letters are taller than the letters.
      if (width > 1 && height > 0.4 * Math.min(p.height, q.height))
        found.push(`${JSON.stringify(a)} lies on ${JSON.stringify(b)} in ${image.alt}`);
    }
  });
  return found;
})
"""


class Browser:
    """Chromium, spoken to over a pipe (the DevTools protocol)."""

    def __init__(self, program: str, profile: str) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()

        def take_pipes() -> None:
            # The protocol's ends are descriptors 3 and 4; away with whatever lies there first.
            a, b = os.dup2(commands, 100), os.dup2(answers, 101)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=take_pipes,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    _session = None

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer; events that come meanwhile are kept."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(TIMEOUT)
            if answer is None:
                raise TimeoutError(f"no answer to {method} in {TIMEOUT:g} s")
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def listen(self, seconds: float) -> None:
        """Keeps the events of a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._next(left)

    def wait_for(self, method: str) -> None:
        """Waits for an event."""
        end = time.monotonic() + TIMEOUT
        while not any(event["method"] == method for event in self.events):
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError(f"no {method} in {TIMEOUT:g} s")
            self._next(left)

    def close(self) -> None:
        """Ends the browser."""
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self._session = None
            self.call("Browser.close")
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._write)
        os.close(self._read)

    def _next(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None if none comes in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("the browser ended before the page was checked")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


@contextlib.contextmanager
def browser(program: str) -> Iterator[Browser]:
    """A browser with a new profile, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="check-page-", ignore_cleanup_errors=True) as profile:
        opened = Browser(program, profile)
        try:
            yield opened
        finally:
            opened.close()


def check(
    opened: Browser, page: Path, scheme: str, name: str, screenshots: Path | None, *, first_screen: bool = False
) -> list[str]:
    """Opens the page in one way and returns what is wrong with it."""
    opened.events.clear()
    size = {"width": WIDTHS[name], "height": 900, "deviceScaleFactor": 1, "mobile": name != "wide"}
    opened.call("Emulation.setDeviceMetricsOverride", **size)
    opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened.call("Page.navigate", url=page.as_uri())
    opened.wait_for("Page.loadEventFired")
    opened.listen(0.3)
    problems = [problem for event in opened.events if (problem := _problem(event, page))]
    if (wide := _evaluate(opened, TOO_WIDE)) > 0:
        problems.append(f"the page is {wide} pixels wider than the window of {WIDTHS[name]}")
    if screenshots is not None:
        part = {} if first_screen else _whole(opened)
        picture = opened.call("Page.captureScreenshot", format="png", captureBeyondViewport=not first_screen, **part)
        screenshots.mkdir(parents=True, exist_ok=True)
        (screenshots / f"{page.stem}-{scheme}-{name}.png").write_bytes(base64.b64decode(picture["data"]))
    problems += _evaluate(opened, OVERLAPS)
    return [f"{scheme}, {name}: {problem}" for problem in problems]


def _whole(opened: Browser) -> dict[str, Any]:
    size = opened.call("Page.getLayoutMetrics")["cssContentSize"]
    return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


def _evaluate(opened: Browser, expression: str) -> Any:
    return opened.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]


def _problem(event: dict[str, Any], page: Path) -> str:
    """What an event says is wrong; empty if nothing is."""
    params = event["params"]
    if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        return f"console: {params['entry']['text']}"
    if event["method"] == "Runtime.consoleAPICalled":
        return f"console: {params['type']}: {[part.get('value') for part in params['args']]}"
    if event["method"] == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        return f"console: {details.get('exception', {}).get('description', details['text'])}"
    if event["method"] == "Network.requestWillBeSent":
        url = params["request"]["url"]
        if url != page.as_uri() and not url.startswith("data:"):
            return f"asks for {url}"
    return ""


def main() -> int:
    """Checks the page that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("page", type=Path, help="the page, e.g. out/report.html")
    parser.add_argument("--screenshots", type=Path, help="folder for a screenshot of each way to look at it")
    parser.add_argument("--first-screen", action="store_true", help="screenshots of the page's first screen alone")
    arguments = parser.parse_args()
    page = arguments.page.resolve()
    if not page.is_file():
        print(f"{arguments.page} is not there; make a report first: ibp compare … --out DIR.", file=sys.stderr)
        return 2
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not program or not shutil.which(program):
        print(
            "Chromium is not installed: apt-get install chromium, or name a Chromium or Chrome in $CHROMIUM.",
            file=sys.stderr,
        )
        return 2
    with browser(program) as opened:
        for domain in ("Page", "Runtime", "Log", "Network"):
            opened.call(f"{domain}.enable")
        problems = [
            problem
            for scheme in ("light", "dark")
            for name in WIDTHS
            for problem in check(opened, page, scheme, name, arguments.screenshots, first_screen=arguments.first_screen)
        ]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        widths = ", ".join(map(str, WIDTHS.values()))
        print(f"{arguments.page}: no errors, no requests, nothing cut off; light and dark, {widths} pixels wide.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
