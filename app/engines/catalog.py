"""The catalog of collections, generations and ranking profiles. They are small JSON documents in a registry.

::

    collection                      the collection's options (CollectionSpec)
    current                         the current generation and the earlier ones; replaced atomically
    generations/<id>/building       the record of a generation that is not finished yet
    generations/<id>/generation     the record of a finished generation (GenerationRecord)
    generations/<id>/spec           a copy of `collection`, from which it is restored if it is lost
    generations/<id>/profile        the version of the generation's ranking profile
    profiles/<version>              ranking profiles, never overwritten
    annotation                      the knowledge base that the collection's documents are annotated with
    creating, deleting              there while a collection is created or deleted: what is left of a crash is no loss
    link_profile, name_counts       the link profile of a knowledge base and the name counts that its prior uses

The current generation answers searches. Another one can be built beside it and then published, which makes it current.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from hashlib import sha256

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError
from hyblink.app.core.names import check_name
from hyblink.app.core.ports.engine import Engine, OpenedCollection
from hyblink.app.core.ports.jobs import Records
from hyblink.app.core.settings import DenseSettings
from hyblink.app.core.types.collections import Annotation, CollectionSpec, GenerationRecord
from hyblink.app.core.types.linking import LinkProfile, NameCounts, check_annotation
from hyblink.app.core.types.ranking import RankingProfile
from hyblink.app.engines.dense.kinds import choose_kind
from hyblink.app.engines.profile_json import (
    as_corruption,
    counts_to_json,
    digests,
    link_profile_from_json,
    profile_from_json,
    profile_to_json,
)
from hyblink.app.engines.registry import Registry

_GENERATION = re.compile(r"g\d{6}")

_HISTORY = 100


def check_spec(spec: CollectionSpec) -> None:
    """Raise InvalidInputError for a bad name, an unknown analyzer or dense index, or bad chunk sizes."""
    check_name(spec.name)
    Analyzer(spec.analyzer)
    if spec.dense_index != "knn":  # `knn` is OpenSearch's own index; the engine checks it
        choose_kind(spec.dense_index, 0, DenseSettings())
    if spec.chunk_chars < 0 or not 0 <= spec.chunk_overlap_chars <= spec.chunk_chars // 2:
        raise InvalidInputError(
            "bad chunking",
            received=f"chunk_chars {spec.chunk_chars}, chunk_overlap_chars {spec.chunk_overlap_chars}",
            expected="an overlap from 0 to half of chunk_chars",
        )


def _guessed(record: GenerationRecord) -> CollectionSpec:
    """The options of a collection as far as a generation's record tells them."""
    return CollectionSpec(
        record.collection,
        analyzer=record.analyzer,
        dense_encoder="default" if record.dense_encoder else "none",
        dense_index=record.dense_index,
        vdr_encoder="default" if record.vdr_model or not record.dense_encoder else "none",
    )


class Catalog:
    """All collections of a registry. It opens generations on demand and keeps them open."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.RLock()
        self._engines: dict[tuple[str, str], Engine] = {}
        self._answering: dict[str, str] = {}

    def names(self) -> list[str]:
        """The names of all collections, sorted."""
        return sorted(self._registry.names())

    def spec(self, name: str) -> CollectionSpec:
        """The collection's options. Raises NotFoundError if there is no such collection."""
        found = self._registry.read(check_name(name), "collection")
        if found is None:
            self._check_whole(name)
            raise NotFoundError(
                "no such collection",
                received=name,
                choices=self.names(),
            )
        try:
            return CollectionSpec(**found)
        except TypeError as error:
            raise CorruptionError(f"the collection {name!r} has unknown fields") from error

    def damaged(self) -> list[str]:
        """The names of collections whose data is there without their description or serving generation, sorted."""
        return sorted(name for name in set(self._registry.stored()) | set(self._registry.names()) if self.missing(name))

    def missing(self, name: str) -> list[str]:
        """Which documents of a collection are missing although a finished generation is there."""
        if any(self._registry.read(name, key) is not None for key in ("creating", "deleting")):
            return []
        missing = [key for key in ("collection", "current") if self._registry.read(name, key) is None]
        there = any(self._exists(name, generation) for generation in self._registry.generations(name))
        return missing if missing and there else []

    def _check_whole(self, name: str) -> None:
        """Raise CorruptionError if a collection's data is there without its description: it is never "not there"."""
        if "collection" in self.missing(name):
            raise CorruptionError(
                f"the description of the collection {name!r} is missing, its documents are there",
                expected="`hyblink fsck --repair`, which restores it",
            )

    def has(self, name: str, generation: str | None = None) -> bool:
        """Whether there is such a collection, damaged ones included, and such a finished generation of it."""
        try:
            if self._registry.read(check_name(name), "collection") is None:
                return bool(self.missing(name))
            return generation is None or any(record.id == generation for record in self.generations(name))
        except CorruptionError:
            return True

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock for changing a collection. Raises WriterConflictError if it is not free in time."""
        return self._registry.lock(check_name(name))

    def keep_copy(self, name: str) -> None:
        """Copy the collection's options into its current generation if they are not there, as in earlier releases."""
        path = f"generations/{self.current(name)}/spec"
        if self._registry.read(name, path) is None:
            self._registry.write(name, path, asdict(self.spec(name)))

    def restore(self, name: str) -> str:
        """Restore the lost description of a collection from its newest generation, and what it serves; return how.

        Raises NotFoundError if no finished generation is there.
        """
        with self._registry.lock(check_name(name)):
            records = self.generations(name)
            if not records:
                raise NotFoundError("no finished generation to restore the collection from", received=name)
            newest, said = records[-1], []
            if self._registry.read(name, "collection") is None:
                kept = self._registry.read(name, f"generations/{newest.id}/spec")
                spec = CollectionSpec(**kept) if kept is not None else _guessed(newest)
                self._registry.write(name, "collection", asdict(spec))
                guessed = "" if kept is not None else ", as a collection of documents with passages of the usual size"
                said.append(f"its description is restored from {newest.id}{guessed}")
            if self._registry.read(name, "current") is None:
                self.publish(name, newest.id)
                said.append(f"it serves {newest.id}, the newest; `hyblink generations publish` takes another")
            return "; ".join(said)

    def create(
        self,
        spec: CollectionSpec,
        record: GenerationRecord,
        fill: Callable[[Engine], None] = lambda _engine: None,
    ) -> None:
        """Create a collection with its first generation. `fill` may write into it before it becomes visible.

        Raises ConflictError if the collection exists, InvalidInputError for bad options. If `fill` fails, nothing
        stays.
        """
        check_spec(spec)
        with self._registry.lock(spec.name):
            if self._registry.read(spec.name, "collection") is not None:
                raise ConflictError("the collection exists already", received=spec.name)
            self._check_whole(spec.name)
            # Remove the remains of a creation or deletion that crashed.
            self._registry.drop(spec.name)
            self._registry.write(spec.name, "creating", {"generation": record.id})
            self.add_generation(record)
            try:
                fill(self.engine(spec.name, record.id))
                self.finish_generation(record)
                self._registry.write(spec.name, f"generations/{record.id}/spec", asdict(spec))
                self.publish(spec.name, record.id)
                self._registry.remove(spec.name, "creating")
                self._registry.write(spec.name, "collection", asdict(spec))
            except BaseException:
                self._forget(spec.name, record.id)
                self._registry.drop(spec.name)
                raise

    def next_generation_id(self, name: str) -> str:
        """The id after the highest existing generation, e.g. `g000002`."""
        taken = [int(generation[1:]) for generation in self._registry.generations(check_name(name))]
        return f"g{max(taken, default=0) + 1:06d}"

    def add_generation(self, record: GenerationRecord) -> None:
        """Begin building a generation. Until it is finished it can be neither listed nor published.

        Raises ConflictError if the id exists.
        """
        if record.id in self._registry.generations(record.collection):
            raise ConflictError("the generation exists already", received=record.id)
        self._registry.write(record.collection, f"generations/{record.id}/building", asdict(record))

    def finish_generation(self, record: GenerationRecord) -> None:
        """Mark a generation as finished, so that it can be listed and published."""
        folder = f"generations/{record.id}"
        spec = self._registry.read(record.collection, "collection")
        if spec is not None:
            self._registry.write(record.collection, f"{folder}/spec", spec)
        self._registry.write(record.collection, f"{folder}/generation", asdict(record))
        self._registry.remove(record.collection, f"{folder}/building")

    def drop_unfinished(self, name: str) -> None:
        """Delete unfinished generations, left by builds that crashed. The caller holds the collection's writer lock."""
        for generation in self._registry.generations(name):
            if not self._exists(name, generation):
                self._forget(name, generation)
                self._registry.drop(name, generation)

    def copy_profile(self, name: str, source: str, target: str) -> None:
        """Make the generation `target` use the ranking profile of the generation `source`."""
        pointer = self._registry.read(name, f"generations/{source}/profile")
        if pointer is not None:
            self._registry.write(name, f"generations/{target}/profile", pointer)

    def generations(self, name: str) -> list[GenerationRecord]:
        """The records of all finished generations, oldest first."""
        found = (
            self._registry.read(name, f"generations/{generation}/generation")
            for generation in self._registry.generations(name)
        )
        return [GenerationRecord(**record) for record in found if record is not None]

    def current(self, name: str) -> str:
        """The id of the current generation. Raises NotFoundError if there is no such collection."""
        found = self._registry.read(check_name(name), "current")
        if found is None:
            self.spec(name)
            raise CorruptionError(f"collection {name!r} has no published generation")
        return str(found["generation"])

    def history(self, name: str) -> list[str]:
        """The ids of generations in the order in which they were published, latest last. An id may repeat."""
        found = self._registry.read(check_name(name), "current")
        return list(found["history"]) if found is not None else []

    def publish(self, name: str, generation: str) -> None:
        """Make a finished generation the current one, atomically."""
        self.record(name, generation)
        history = [*self.history(name), generation][-_HISTORY:]
        self._registry.write(name, "current", {"generation": generation, "history": history})
        self._registry.published(name, generation)

    def record(self, name: str, generation: str) -> GenerationRecord:
        """The record of a finished generation. Raises NotFoundError if there is none of that id."""
        if not _GENERATION.fullmatch(generation):
            raise InvalidInputError("bad generation id", received=generation, expected="such as g000001")
        found = self._registry.read(check_name(name), f"generations/{generation}/generation")
        if found is None:
            known = ", ".join(record.id for record in self.generations(name))
            raise NotFoundError("no such generation", received=generation, expected=f"one of {known}")
        return GenerationRecord(**found)

    def earlier(self, name: str) -> str:
        """The id of the generation that was current before this one. Raises ConflictError if there is none."""
        current = self.current(name)
        for earlier in reversed(self.history(name)):
            if earlier != current and self._exists(name, earlier):
                return earlier
        raise ConflictError("there is no earlier generation to go back to", received=current)

    def _exists(self, name: str, generation: str) -> bool:
        return self._registry.read(name, f"generations/{generation}/generation") is not None

    def drop_old(self, name: str, keep: int) -> list[str]:
        """Delete old generations and return their ids. The current one and the newest `keep` - 1 others stay.

        Generations that were never published are neither counted nor deleted.
        """
        current = self.current(name)
        answered = set(self.history(name)) - {current}
        others = [record.id for record in self.generations(name) if record.id in answered]
        dropped = others[: max(0, len(others) - (keep - 1))]
        for generation in dropped:
            self._forget(name, generation)
            self._registry.drop(name, generation)
        return dropped

    def discard(self, name: str, generation: str) -> None:
        """Delete a generation. Raises ConflictError for the current one."""
        if generation == self.current(name):
            raise ConflictError("the current generation cannot be deleted", received=generation)
        self._forget(name, generation)
        self._registry.drop(name, generation)

    def _forget(self, name: str, generation: str) -> None:
        # Not closed here, since running searches may still use it. It closes when the last reference is gone.
        with self._lock:
            self._engines.pop((name, generation), None)

    def engine(self, name: str, generation: str | None = None) -> Engine:
        """The open engine of a generation, by default the current one. It is opened again if its data was replaced."""
        wanted = generation or self.current(name)
        with self._lock:
            engine = self._engines.get((name, wanted))
            if engine is None or engine.replaced():
                self._forget_gone(name)
                unfinished = self._registry.read(check_name(name), f"generations/{wanted}/building")
                finished = self._exists(name, wanted) or unfinished is None
                record = self.record(name, wanted) if finished else GenerationRecord(**(unfinished or {}))
                engine = self._registry.open(record)
                self._engines[name, wanted] = engine
            return engine

    def open(self, name: str, generation: str | None = None) -> OpenedCollection:
        """The engine, snapshot and ranking profile for a search: of the current generation, or of a finished one by id.

        Raises NotFoundError if there is no such collection or generation.
        """
        if generation is not None:
            self.record(name, generation)
            engine = self.engine(name, generation)
            return OpenedCollection(engine, engine.snapshot(), self.profile(name, generation))
        with self._registry.moment(name, self._answering.get(name, "")):
            engine = self.engine(name)
            self._answering[name] = engine.record.id
            return OpenedCollection(engine, engine.snapshot(), self.profile(name, engine.record.id))

    def _forget_gone(self, name: str) -> None:
        """Drop cached engines whose generation another process has deleted or recreated."""
        for key in [key for key, engine in self._engines.items() if key[0] == name and engine.replaced()]:
            del self._engines[key]

    def delete(self, name: str) -> None:
        """Delete a collection with all its generations. Raises NotFoundError if there is none of that name."""
        self.spec(name)
        with self._registry.lock(name):
            for key in [key for key in self._engines if key[0] == name]:
                self._forget(*key)
            self._registry.write(name, "deleting", {})
            self._registry.drop(name)

    def records(self) -> Records:
        """The record store for jobs, claims, judgements and the like."""
        return self._registry.records()

    def close(self) -> None:
        """Close all open engines and the registry."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()
            self._registry.close()

    def profile(self, name: str, generation: str) -> RankingProfile:
        """The ranking profile of a generation; the shipped default if it has none."""
        pointer = self._registry.read(check_name(name), f"generations/{generation}/profile")
        if pointer is None:
            return RankingProfile()
        with as_corruption("pointer to a ranking profile"):
            version = int(pointer["version"])
        return self._read_profile(name, version)

    def _read_profile(self, name: str, version: int) -> RankingProfile:
        found = self._registry.read(name, f"profiles/{version}")
        if found is None:
            raise NotFoundError("no such ranking profile", received=version)
        return profile_from_json(found)

    def profiles(self, name: str) -> list[RankingProfile]:
        """All saved ranking profiles, oldest first."""
        return [self._read_profile(name, version) for version in self._registry.profiles(check_name(name))]

    def save_profile(self, name: str, profile: RankingProfile) -> RankingProfile:
        """Save a ranking profile under the next version number and make the current generation use it.

        Returns the profile with its version.
        """
        with self._registry.lock(name):
            version = max(self._registry.profiles(name), default=0) + 1
            saved = replace(profile, version=version)
            self._registry.write(name, f"profiles/{version}", profile_to_json(saved))
            self.use_profile(name, version)
        return saved

    def use_profile(self, name: str, version: int) -> None:
        """Make the current generation use a saved ranking profile. Raises NotFoundError if there is no such version."""
        self._read_profile(check_name(name), version)
        self._registry.write(name, f"generations/{self.current(name)}/profile", {"version": version})

    def annotation(self, name: str) -> Annotation | None:
        """The collection's annotation option; None if its documents are not annotated."""
        found = self._registry.read(check_name(name), "annotation")
        return Annotation(**found) if found and found["kb"] else None

    def save_annotation(self, name: str, annotation: Annotation | None) -> None:
        """Set the annotation option for new documents; None switches annotation off.

        Raises NotFoundError if the collection or the knowledge base does not exist, ConflictError if the collection is
        itself a knowledge base, InvalidInputError if the threshold is not in 0 to 1.
        """
        spec = self.spec(name)
        if annotation is not None:
            self.spec(annotation.kb)
            check_annotation(spec, annotation)
        with self._registry.lock(name):
            self._registry.write(name, "annotation", asdict(annotation or Annotation("")))

    def link_profile(self, name: str) -> LinkProfile | None:
        """The saved link profile of a knowledge base; None if it uses the shipped default."""
        found = self._registry.read(check_name(name), "link_profile")
        return None if found is None else link_profile_from_json(found)

    def save_link_profile(self, name: str, profile: LinkProfile, counts: NameCounts | None = None) -> LinkProfile:
        """Save a link profile under the next version number, and the name counts if given. It takes effect at once.

        Returns the profile with its version and, if counts were given, their digest.
        """
        self.spec(name)
        with self._registry.lock(name):
            known = self.link_profile(name)
            saved = replace(profile, version=known.version + 1 if known else 1)
            if counts is None and saved.counted and self._registry.read(name, "name_counts") is None:
                counts = self.name_counts(name)
            if counts is not None:
                written = counts_to_json(counts)
                saved = replace(saved, counted=sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16])
                self._registry.write(name, "name_counts", written)
            self._registry.write(name, "link_profile", asdict(saved))
        return saved

    def name_counts(self, name: str) -> NameCounts:
        """The saved name counts of a knowledge base. Linking uses them only if the link profile's `counted` is set."""
        found = self._registry.read(check_name(name), "name_counts")
        if found is not None:
            return NameCounts(found["names"], digests(found["judged"]))
        earlier = self._registry.read(name, "link_profile") or {}  # earlier releases stored the counts in the profile
        return NameCounts(earlier.get("counts") or {})
