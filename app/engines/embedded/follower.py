"""Background index updates while an ingestion run writes documents.

A short run is indexed by a thread, a long one by a separate process, so that indexing uses another core than reading
and storing. A follower is only an optimisation: the next search applies whatever it has not applied.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from pathlib import Path
from typing import Protocol

from hyblink.app.core.process import module_command, module_environment
from hyblink.app.core.settings import Settings

log = logging.getLogger(__name__)
_PROCESS_AFTER = 5
"""The number of nudges (transactions) after which a run counts as long and gets its own process."""


class FollowedEngine(Protocol):
    """The parts of an engine that a follower uses."""

    folder: Path
    settings: Settings

    def snapshot(self) -> object:
        """Bring every index up to date with the store."""
        ...


class Follower:
    """Updates the indexes in the background. Nudges that arrive during an update are combined into one."""

    def __init__(self, engine: FollowedEngine) -> None:
        self._engine = engine
        self._nudged = threading.Event()
        self._closing = False
        self._nudges = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="hyblink-index", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Report that something was written to the store. Returns at once."""
        self._nudges += 1
        if self._nudges == _PROCESS_AFTER:
            self._process = _start(self._engine)
        if self._process is None:
            self._nudged.set()
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b".")
            self._process.stdin.flush()
        except OSError as error:
            log.warning("the indexing process ended early: %s", error)
            self._process.wait()
            self._process = None

    def _run(self) -> None:
        while not self._closing:
            self._nudged.wait()
            self._nudged.clear()
            if not self._closing:
                self._engine.snapshot()

    def close(self) -> None:
        """Wait until the indexes include everything stored, then stop. Raises the engine's errors."""
        self._closing = True
        self._nudged.set()
        if self._process is not None:
            self._process.communicate()
            if self._process.returncode:
                log.warning("the indexing process failed with status %s", self._process.returncode)
        self._thread.join()
        self._engine.snapshot()


def _start(engine: FollowedEngine) -> subprocess.Popen[bytes]:
    command = module_command("hyblink.app.engines.embedded.follower_process", str(engine.folder.resolve()))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=module_environment())
    assert process.stdin is not None
    process.stdin.write(engine.settings.model_dump_json().encode() + b"\n")
    return process
