"""What a reader of an evaluation's figures has to know: checked before it runs, and counted while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.search import SearchRequest, SearchResult
from hyblink.app.evaluation.qrels import Qrels
from hyblink.app.search.request import check_request

_NAMED = 3


def check_before(
    app: App,
    collection: str,
    generation: str | None,
    queries: Mapping[str, str],
    qrels: Qrels,
    requests: Sequence[SearchRequest],
) -> list[str]:
    """Check an evaluation before its first search; return what its figures will not show, as messages.

    Messages name judged documents that the collection lacks, and passages that are not encoded. Raises
    InvalidInputError if it has none of the judged documents, and for a query that no request may have, with its id.
    """
    for query, text in queries.items():
        for request in requests:
            try:
                check_request(replace(request, query=text), app.settings.search)
            except InvalidInputError as error:
                raise InvalidInputError(f"query {query!r} cannot be asked: {error}") from error
    engine = app.catalog.engine(collection, generation)
    reader = engine.store.reader()
    judged = sorted({document for grades in qrels.values() for document, grade in grades.items() if grade > 0})
    known = reader.metadata_of(judged)
    missing = [document for document in judged if document not in known]
    if judged and len(missing) == len(judged):
        raise InvalidInputError(
            "the collection has none of the judged documents",
            received=f"ids such as {', '.join(missing[:_NAMED])}",
            expected=f"ids of documents of {collection}, as `hyblink documents` lists them",
        )
    said = []
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        said.append(f"{len(missing)} of {len(judged)} relevant documents are not in the collection ({named})")
    counts = reader.counts()
    waiting = counts.passages - counts.encoded
    if engine.record.dense_dimension and waiting:
        said.append(
            f"{waiting} of {counts.passages} passages are not encoded yet: figures with dense, vdr and hybrid change "
            "until they are (`hyblink jobs workers` says how many wait)"
        )
    return said


class Seen:
    """Counts what searches of one system left out."""

    def __init__(self, system: str) -> None:
        self._system = system
        self._searches = 0
        self._skipped = self._asked = 0
        self._errors: Counter[str] = Counter()

    def result(self, found: SearchResult) -> None:
        """Count what one search left out."""
        self._searches += 1
        for leg in found.legs:
            if leg.error:
                self._errors[f"{leg.signal} did not answer ({leg.error})"] += 1
        if found.rerank is not None:
            self._asked += found.rerank.asked
            self._skipped += found.rerank.skipped
            if found.rerank.error:
                self._errors[f"not re-ranked ({found.rerank.error})"] += 1

    def notes(self) -> list[str]:
        """What was left out, as messages; none if nothing was."""
        said = [
            f"{self._system}: {what} in {count} of {self._searches} searches" for what, count in self._errors.items()
        ]
        if self._skipped:
            said.append(
                f"{self._system}: {self._skipped} of {self._asked} documents were not re-ranked for lack of time; "
                "--rerank-ms gives more"
            )
        return said
