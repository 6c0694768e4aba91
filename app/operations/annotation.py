"""Annotating documents with the entities that they mention."""

from __future__ import annotations

from collections.abc import Callable

from hyblink.app.application import App
from hyblink.app.core.errors import NotFoundError
from hyblink.app.core.types.collections import Annotation
from hyblink.app.core.types.linking import check_annotation
from hyblink.app.linking.annotation import Annotated
from hyblink.app.linking.annotation import annotate as annotate_documents


def annotate(
    app: App,
    collection: str,
    annotation: Annotation,
    *,
    waiting_only: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Annotated:
    """Link the documents of a collection to entities, and write the entities' ids into the documents' metadata.

    With `waiting_only`, only documents that are not annotated yet are read. Raises NotFoundError, InvalidInputError.
    """
    check_annotation(app.catalog.spec(collection), annotation)
    return annotate_documents(
        app.catalog, app.documents, app.linker, collection, annotation, waiting_only=waiting_only,
        max_chars=app.settings.link.max_text_chars, progress=progress, stop=stop,
    )  # fmt: skip


def annotate_waiting(app: App, collection: str, stop: Callable[[], bool]) -> None:
    """Annotate the documents that are not annotated yet. Does nothing if the collection has no annotation setting."""
    try:
        annotation = app.catalog.annotation(collection)
    except NotFoundError:
        return
    if annotation is not None:
        annotate(app, collection, annotation, waiting_only=True, stop=stop)


def annotate_always(app: App, collection: str, annotation: Annotation | None) -> None:
    """Store a collection's annotation setting, and queue the existing documents for annotation.

    Documents that arrive later are annotated too. `annotation` None turns this off. Raises NotFoundError.
    """
    app.catalog.save_annotation(collection, annotation)
    if annotation is not None:
        app.jobs.annotate(collection)
