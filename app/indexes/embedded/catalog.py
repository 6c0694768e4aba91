"""Collections and their generations on disk.

::

    <data_dir>/collections/<name>/collection.json        the collection's choices
                                  current.json            which generation answers; replaced atomically
                                  generations/<id>/       generation.json, store.sqlite, bm25/, sparse/, dense/
                                  generations/<id>/profile.json   which ranking profile the generation uses
                                  profiles/<version>.json ranking profiles, never overwritten
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import filelock

from app.core.errors import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    WriterConflictError,
)
from app.core.manifest import read_json, write_json
from app.core.settings import DenseSettings, Settings
from app.core.text import Analyzer
from app.core.types import CollectionSpec, GenerationRecord, RankingProfile, Signal
from app.indexes.dense.faiss_index import choose_kind
from app.indexes.embedded.engine import EmbeddedEngine

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_GENERATION = re.compile(r"g\d{6}")
_RECORD, _UNFINISHED = "generation.json", "building.json"


def check_name(name: str) -> str:
    """A collection name, or InvalidInputError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(
            "bad collection name",
            received=name,
            expected="1 to 63 of a-z, 0-9, _ and -, not starting with _ or -",
        )
    return name


def check_spec(spec: CollectionSpec) -> None:
    """Raises InvalidInputError for choices that make no sense."""
    check_name(spec.name)
    Analyzer(spec.analyzer)
    choose_kind(spec.dense_index, 0, DenseSettings())
    if spec.chunk_chars < 0 or not 0 <= spec.chunk_overlap_chars <= spec.chunk_chars // 2:
        raise InvalidInputError(
            "bad chunking",
            received=f"chunk_chars {spec.chunk_chars}, chunk_overlap_chars {spec.chunk_overlap_chars}",
            expected="an overlap from 0 to half of chunk_chars",
        )


class Catalog:
    """All collections under one data directory. Keeps the engines that are in use open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = settings.data_dir / "collections"
        self._lock = threading.RLock()
        self._engines: dict[tuple[str, str], EmbeddedEngine] = {}

    def _folder(self, name: str) -> Path:
        return self._root / check_name(name)

    def names(self) -> list[str]:
        """Every collection, sorted."""
        return sorted(path.parent.name for path in self._root.glob("*/collection.json"))

    def spec(self, name: str) -> CollectionSpec:
        """The collection's choices. Raises NotFoundError."""
        path = self._folder(name) / "collection.json"
        if not path.exists():
            raise NotFoundError(
                "no such collection",
                received=name,
                expected=f"one of {', '.join(self.names()) or '(none yet)'}",
            )
        try:
            return CollectionSpec(**read_json(path))
        except TypeError as error:
            raise CorruptionError(f"collection.json of {name!r} has unknown fields") from error

    def create(
        self,
        spec: CollectionSpec,
        record: GenerationRecord,
        fill: Callable[[EmbeddedEngine], None] = lambda _engine: None,
    ) -> None:
        """Make a collection with its first generation; `fill` may write into it before anybody sees it.

        Raises ConflictError where it exists, InvalidInputError for choices that make no sense.
        """
        check_spec(spec)
        folder = self._folder(spec.name)
        with self._collection_lock(spec.name):
            if (folder / "collection.json").exists():
                raise ConflictError("the collection exists already", received=spec.name)
            # What a process that died left behind was never seen by anybody.
            shutil.rmtree(folder, ignore_errors=True)
            self.add_generation(record)
            try:
                fill(self.engine(spec.name, record.id))
                self.finish_generation(record)
                self.publish(spec.name, record.id)
                write_json(folder / "collection.json", asdict(spec))
            except BaseException:
                self._forget(spec.name, record.id)
                shutil.rmtree(folder, ignore_errors=True)
                raise

    @contextmanager
    def _collection_lock(self, name: str) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self._root / f".{check_name(name)}.lock")
        try:
            lock.acquire(timeout=self._settings.ingest.writer_wait_s)
        except filelock.Timeout:
            raise WriterConflictError("another process is changing this collection", received=name) from None
        try:
            yield
        finally:
            lock.release()

    def next_generation_id(self, name: str) -> str:
        """One above the highest that exists, e.g. `g000002`."""
        taken = [int(path.name[1:]) for path in (self._folder(name) / "generations").glob("g??????")]
        return f"g{max(taken, default=0) + 1:06d}"

    def add_generation(self, record: GenerationRecord) -> None:
        """Begin a generation: until it is finished it can be neither listed nor published."""
        folder = self._folder(record.collection) / "generations" / record.id
        if folder.exists():
            raise ConflictError("the generation exists already", received=record.id)
        write_json(folder / _UNFINISHED, asdict(record))

    def finish_generation(self, record: GenerationRecord) -> None:
        """Declare a generation whole."""
        folder = self._folder(record.collection) / "generations" / record.id
        (folder / _UNFINISHED).replace(folder / _RECORD)

    def drop_unfinished(self, name: str) -> None:
        """Delete what builds that died have left. The caller holds the collection's writer lock."""
        for path in (self._folder(name) / "generations").glob(f"g??????/{_UNFINISHED}"):
            self._forget(name, path.parent.name)
            shutil.rmtree(path.parent, ignore_errors=True)

    def copy_profile(self, name: str, source: str, target: str) -> None:
        """Let one generation use the ranking profile of another."""
        folder = self._folder(name) / "generations"
        if (folder / source / "profile.json").exists():
            write_json(folder / target / "profile.json", read_json(folder / source / "profile.json"))

    def generations(self, name: str) -> list[GenerationRecord]:
        """Every finished generation, oldest first."""
        folder = self._folder(name) / "generations"
        return [GenerationRecord(**read_json(path)) for path in sorted(folder.glob("g??????/generation.json"))]

    def current(self, name: str) -> str:
        """The id of the generation that answers."""
        path = self._folder(name) / "current.json"
        if not path.exists():
            self.spec(name)
            raise CorruptionError(f"collection {name!r} has no published generation")
        return str(read_json(path)["generation"])

    def history(self, name: str) -> list[str]:
        """Published generations, latest last."""
        path = self._folder(name) / "current.json"
        return list(read_json(path)["history"]) if path.exists() else []

    def publish(self, name: str, generation: str) -> None:
        """Let a generation answer from now on. Readers see the old one or the new one, nothing between."""
        self._record_path(name, generation)
        history = [*self.history(name), generation][-100:]
        write_json(self._folder(name) / "current.json", {"generation": generation, "history": history})

    def _record_path(self, name: str, generation: str) -> Path:
        if not _GENERATION.fullmatch(generation):
            raise InvalidInputError("bad generation id", received=generation, expected="such as g000001")
        path = self._folder(name) / "generations" / generation / "generation.json"
        if not path.exists():
            known = ", ".join(record.id for record in self.generations(name))
            raise NotFoundError("no such generation", received=generation, expected=f"one of {known}")
        return path

    def roll_back(self, name: str) -> str:
        """Publish the generation that answered before the current one; its id."""
        current = self.current(name)
        for earlier in reversed(self.history(name)):
            if earlier != current and self._exists(name, earlier):
                self.publish(name, earlier)
                return earlier
        raise ConflictError("there is no earlier generation to go back to", received=current)

    def _exists(self, name: str, generation: str) -> bool:
        return (self._folder(name) / "generations" / generation / "generation.json").exists()

    def drop_old(self, name: str, keep: int) -> list[str]:
        """Delete all but the newest `keep` generations; the current one always stays. What was deleted."""
        current = self.current(name)
        others = [record.id for record in self.generations(name) if record.id != current]
        dropped = others[: max(0, len(others) - (keep - 1))]
        for generation in dropped:
            self._forget(name, generation)
            shutil.rmtree(self._folder(name) / "generations" / generation)
        return dropped

    def discard(self, name: str, generation: str) -> None:
        """Delete an unpublished generation."""
        if generation == self.current(name):
            raise ConflictError("the current generation cannot be deleted", received=generation)
        self._forget(name, generation)
        shutil.rmtree(self._folder(name) / "generations" / generation, ignore_errors=True)

    def _forget(self, name: str, generation: str) -> None:
        # Searches in flight may still use it: it closes when the last of them lets go.
        with self._lock:
            self._engines.pop((name, generation), None)

    def engine(self, name: str, generation: str | None = None) -> EmbeddedEngine:
        """The open engine of a generation, by default the current one."""
        wanted = generation or self.current(name)
        with self._lock:
            engine = self._engines.get((name, wanted))
            if engine is None or engine.replaced():
                self._forget_gone(name)
                path = self._unfinished_or_record(name, wanted)
                engine = EmbeddedEngine(path.parent, GenerationRecord(**read_json(path)), self._settings)
                self._engines[name, wanted] = engine
            return engine

    def _forget_gone(self, name: str) -> None:
        """Let go of generations that another process has deleted or made anew."""
        for key in [key for key, engine in self._engines.items() if key[0] == name and engine.replaced()]:
            del self._engines[key]

    def _unfinished_or_record(self, name: str, generation: str) -> Path:
        path = self._folder(name) / "generations" / generation / _UNFINISHED
        return path if path.exists() else self._record_path(name, generation)

    def delete(self, name: str) -> None:
        """Delete a collection with everything in it."""
        self.spec(name)
        with self._collection_lock(name):
            for key in [key for key in self._engines if key[0] == name]:
                self._forget(*key)
            shutil.rmtree(self._folder(name))

    def close(self) -> None:
        """Close every open engine."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()

    def profile(self, name: str, generation: str) -> RankingProfile:
        """The ranking profile that the generation points to; the shipped default where it points to none."""
        pointer = self._folder(name) / "generations" / generation / "profile.json"
        if not pointer.exists():
            return RankingProfile()
        return self._read_profile(name, int(read_json(pointer)["version"]))

    def _read_profile(self, name: str, version: int) -> RankingProfile:
        path = self._folder(name) / "profiles" / f"{version}.json"
        if not path.exists():
            raise NotFoundError("no such ranking profile", received=version)
        return profile_from_json(read_json(path))

    def profiles(self, name: str) -> list[RankingProfile]:
        """Every saved profile, oldest first."""
        paths = (self._folder(name) / "profiles").glob("*.json")
        return [self._read_profile(name, int(path.stem)) for path in sorted(paths, key=lambda p: int(p.stem))]

    def save_profile(self, name: str, profile: RankingProfile) -> RankingProfile:
        """Save under the next version and let the current generation point to it."""
        with self._collection_lock(name):
            version = max((saved.version for saved in self.profiles(name)), default=0) + 1
            saved = replace(profile, version=version)
            write_json(self._folder(name) / "profiles" / f"{version}.json", profile_to_json(saved))
            self.use_profile(name, version)
        return saved

    def use_profile(self, name: str, version: int) -> None:
        """Let the current generation point to a saved profile."""
        self._read_profile(name, version)
        pointer = self._folder(name) / "generations" / self.current(name) / "profile.json"
        write_json(pointer, {"version": version})


def profile_to_json(profile: RankingProfile) -> dict[str, Any]:
    """The profile as plain JSON."""
    return {
        **asdict(profile),
        "weights": {signal.value: weight for signal, weight in profile.weights.items()},
    }


def profile_from_json(value: dict[str, Any]) -> RankingProfile:
    """The profile that `profile_to_json` wrote."""
    weights = {Signal(name): float(weight) for name, weight in value["weights"].items()}
    return RankingProfile(**{**value, "weights": weights})


def now() -> str:
    """The present moment, UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
