"""Runs the commands that pages of documentation show, and compares what they print with what the pages say.

A block is fenced as ```console. A line that begins with `$ ` is a command; what follows is its output, standard error
included. `…` stands for anything, and numbers with a decimal point, times and process ids for any of their kind. Blocks
of a page run one after another in one folder with one data folder. `hyblink serve &` stays until the page ends, on a free
port that stands for 8080. A block under `<!-- not run: reason -->` is left out.

    python -m tests.support.documentation README.md             # prints every command with its real output
    python -m tests.support.documentation --write README.md     # writes the outputs that differ into the page
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from .brokers import free_port

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)
_ADDRESS = "127.0.0.1:8080"
_VARYING = re.compile(r"-?\d+\.\d+|(?<=process )\d+|\b\d+(?= ms\b)")
_START_S = 180.0


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a page and the output that the page shows for it."""

    line: int
    command: str
    output: str


def steps(page: Path) -> list[Step]:
    """The commands of a page that are to be run, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Step] = []
    for block in _BLOCK.finditer(text):
        if block["reason"]:
            continue
        number = text[: block.start("text")].count("\n") + 1
        assert block["text"].startswith("$ "), f"{page.name}:{number}: a console block begins with a command"
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            source = re.match(r"(?:.*\\\n)*.*\n?", part)
            assert source is not None
            found.append(Step(number, source[0].rstrip("\n"), part[source.end() :].rstrip()))
    return found


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what a page shows. White space at the end of lines does not count."""
    expected, got = (
        _VARYING.sub("#", "\n".join(line.rstrip() for line in text.strip().splitlines())) for text in (shown, printed)
    )
    return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), got, flags=re.DOTALL) is not None


def run(page: Path, folder: Path) -> Iterator[tuple[Step, str]]:
    """Runs a page's commands in `folder`; yields each with what it printed."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HYBLINK_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HYBLINK_API__PORT": str(port),
        "HYBLINK_ENCODE__PRECISION": "fp32",  # whatever the CPU has
        "COLUMNS": "120",
    }
    with ExitStack() as stack:
        for step in steps(page):
            if step.command == "hyblink serve &":
                serving = stack.enter_context(_Serving("hyblink serve", folder, environment, port))
                yield step, serving.printed.replace(f":{port}", ":8080")
                continue
            done = subprocess.run(
                ["bash", "-c", step.command.replace(_ADDRESS, f"127.0.0.1:{port}")],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=600,
            )
            yield step, done.stdout.replace(f":{port}", ":8080")


class _Serving:
    """`hyblink serve` while it is entered; `printed` is what it said until it was ready."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str], port: int) -> None:
        self._port = port
        self._log = folder / "serve.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stderr=log)
        self.printed = ""

    def __enter__(self) -> _Serving:  # noqa: PYI034
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            self.printed = self._log.read_text(encoding="utf-8")
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5).close()
                return self
            time.sleep(0.2)
        self._process.kill()
        raise AssertionError(f"the service did not start:\n{self.printed}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


def written(text: str, step: Step, printed: str) -> str:
    """The page with a command's real output in the place of the shown one."""
    shown = f"$ {step.command}\n{step.output}\n" if step.output else f"$ {step.command}\n"
    assert shown in text, step
    lines = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return text.replace(shown, f"$ {step.command}\n{lines}\n" if lines else f"$ {step.command}\n", 1)


def main() -> None:
    """Print, or write, the pages' commands with what they really print."""
    names = [name for name in sys.argv[1:] if name != "--write"]
    for page in (ROOT / name for name in names):
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            for step, printed in run(page, Path(folder)):
                right = matches(step.output, printed)
                sys.stdout.write(f"$ {step.command}{'' if right else '   # differs from the page'}\n{printed}")
                sys.stdout.flush()
                text = text if right else written(text, step, printed)
        if "--write" in sys.argv:
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
