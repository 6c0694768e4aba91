"""Disk cache of a frozen backbone's token states. Training a head then needs no forward pass of the backbone.

`states.f2` holds the float16 states of all texts one after another, `ids.i4` their token ids, and `index.jsonl` one
line per text with its place. An index line is written after its data, so the index of a killed run is consistent.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from filelock import FileLock

from hyblink.app.encoders.dense.backbone import Backbone, TextStates

_BLOCK = 256


class StateCache:
    """Cached token states of texts in a subfolder of `folder`. Safe for threads and for several processes.

    `identity` names the backbone, its layers and its window; each identity has its own subfolder.
    """

    def __init__(self, folder: Path, backbone: Callable[[], Backbone], identity: str) -> None:
        self._folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._backbone = backbone
        self._lock = threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}
        self._tokens = self._known_bytes = 0
        self._hidden = 0
        self._states: Any = None
        self._ids: Any = None
        self._read_index()

    def _file(self, name: str) -> Path:
        return self._folder / name

    def _read_index(self) -> None:
        path = self._file("index.jsonl")
        if not path.exists():
            return
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                break  # an incomplete last line, from a killed run or one that is writing
            whole += len(line)
            self._known_bytes = whole
            self._places[row["text"]] = (row["start"], row["end"])
            self._tokens, self._hidden = row["end"], row["hidden"]

    @staticmethod
    def _key(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, texts: Sequence[str], progress: Callable[[int], None] = lambda _: None) -> list[TextStates]:
        """The token states and ids of texts; uncached texts are computed and stored first.

        The dense vectors in the result are empty, because they are not cached. `progress` is called with the number of
        texts computed in each block.
        """
        with self._lock:
            return self._get(texts, progress)

    def _get(self, texts: Sequence[str], progress: Callable[[int], None]) -> list[TextStates]:
        keys = [self._key(text) for text in texts]
        unknown = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._places}
        items = list(unknown.items())
        for at in range(0, len(items), _BLOCK):
            self._compute(items[at : at + _BLOCK])
            progress(min(_BLOCK, len(items) - at))
        if self._states is None and self._tokens:
            self._states = np.memmap(self._file("states.f2"), np.float16, "r").reshape(-1, self._hidden)
            self._ids = np.memmap(self._file("ids.i4"), np.int32, "r")
        found = []
        for key in keys:
            start, end = self._places[key]
            states = np.asarray(self._states[start:end], dtype=np.float32)
            found.append(TextStates(np.zeros(0, dtype=np.float32), np.array(self._ids[start:end]), states))
        return found

    def _compute(self, items: Sequence[tuple[str, str]]) -> None:
        with FileLock(self._file("lock")):  # another process may have written meanwhile
            path = self._file("index.jsonl")
            if path.exists() and path.stat().st_size != self._known_bytes:
                self._read_index()
                self._states = self._ids = None
            unknown = [item for item in items if item[0] not in self._places]
            if unknown:
                self._append(unknown)

    def _append(self, items: Sequence[tuple[str, str]]) -> None:
        self._states = self._ids = None
        lines = []
        with (
            self._file("states.f2").open("r+b" if self._tokens else "wb") as states,
            self._file("ids.i4").open("r+b" if self._tokens else "wb") as ids,
        ):
            states.seek(self._tokens * self._hidden * 2)
            ids.seek(self._tokens * 4)
            states.truncate()
            ids.truncate()
            for at, made in self._backbone().states([text for _, text in items]):
                self._hidden = made.states_LH.shape[1]
                states.write(made.states_LH.astype(np.float16).tobytes())
                ids.write(made.ids_L.astype(np.int32).tobytes())
                start, self._tokens = self._tokens, self._tokens + len(made.ids_L)
                self._places[items[at][0]] = (start, self._tokens)
                line = {"text": items[at][0], "start": start, "end": self._tokens, "hidden": self._hidden}
                lines.append(orjson.dumps(line) + b"\n")
        self._file("index.jsonl").touch()
        with self._file("index.jsonl").open("r+b") as index:
            index.seek(self._known_bytes)
            index.truncate()
            index.writelines(lines)
            index.flush()
            self._known_bytes = index.tell()
