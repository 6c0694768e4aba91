"""Copies, renames and empties collections. Nothing is encoded again."""

from __future__ import annotations

from dataclasses import replace

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, NotFoundError
from hyblink.app.core.names import check_name
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.progress import Progress, silent
from hyblink.app.operations.listing import delete_all, matching_ids
from hyblink.app.operations.sources import copy_sources
from hyblink.indexer.generations.build import copy_documents


def copy_collection(app: App, source: str, target: str, progress: Progress = silent) -> int:
    """Make a collection with all that another holds; return the number of documents.

    Documents, vectors, weights, the ranking profile, judgements, the names of its sources and the settings for linking
    go with it; older generations, clicks and jobs do not. Raises NotFoundError, and ConflictError if `target` exists.
    """
    check_name(target)
    spec = replace(app.catalog.spec(source), name=target)
    engine = app.catalog.engine(source)
    if target in app.catalog.names():
        raise ConflictError("the collection exists already", received=target, expected="a new name")
    reader = engine.store.reader()
    advance = progress("documents", reader.counts().documents)
    record = replace(
        engine.record, id="g000001", collection=target, parent="", note=f"a copy of {source} {engine.record.id}"
    )
    count = 0

    def fill(made: Engine) -> None:
        nonlocal count
        keep = bool(engine.record.dense_dimension)
        count = copy_documents(reader.export(), made, keep_vectors=keep, progress=advance)
        made.snapshot()

    app.catalog.create(spec, record, fill)
    profile = app.catalog.profile(source, engine.record.id)
    if profile.version:
        app.catalog.save_profile(target, profile)
    if (annotation := app.catalog.annotation(source)) is not None:
        app.catalog.save_annotation(target, annotation)
    if (linking := app.catalog.link_profile(source)) is not None:
        app.catalog.save_link_profile(target, linking, app.catalog.name_counts(source) if linking.counted else None)
    app.feedback.copy(source, target)
    copy_sources(app, source, target)
    return count


def rename_collection(app: App, source: str, target: str, progress: Progress = silent) -> int:
    """Copy a collection to a new name and remove the old one; return the number of documents.

    Raises NotFoundError, and ConflictError if `target` exists, or if others are annotated with `source`.
    """
    users = [
        name
        for name in app.catalog.names()
        if name != source and (own := app.catalog.annotation(name)) is not None and own.kb == source
    ]
    if users:
        raise ConflictError(
            "other collections are annotated with this knowledge base", received=source, expected=f"first {users}"
        )
    before = app.catalog.engine(source).store.change()
    count = copy_collection(app, source, target, progress)
    if app.catalog.engine(source).store.change() != before:
        app.catalog.delete(target)
        raise ConflictError("the collection was written to meanwhile", received=source, expected="a quiet one")
    try:
        schedule = app.schedules.get(source)
    except NotFoundError:
        pass
    else:
        app.schedules.set(target, schedule.every_hours, schedule.params, schedule.by)
        app.schedules.remove(source)
    app.catalog.delete(source)
    return count


def empty_collection(app: App, name: str) -> int:
    """Delete all documents of a collection, whose settings stay; return how many. Raises NotFoundError."""
    return delete_all(app, name, matching_ids(app, name))
