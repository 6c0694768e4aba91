"""Store relevance judgements, shown result pages and clicks, and derive judgements from clicks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hyblink.app.core.checks import check_text, fold
from hyblink.app.core.clock import now, oldest_id, sortable_id
from hyblink.app.core.errors import InvalidInputError, NotFoundError, TooLargeError
from hyblink.app.core.ports.jobs import Record, Records, remove_older
from hyblink.app.evaluation.qrels import Qrels
from hyblink.app.feedback.click_model import MAX_GRADE, PositionModel, ResultPage, fit_position_model

_JUDGEMENT, _SEARCH, _CLICK = "judgement", "shown", "click"
_PAGE = 1000
_LOGGED = 100
"""The largest number of documents of a page that are logged: pages of thousands would fill the disk."""
MAX_AT_ONCE = 10_000
MAX_QUERY_CHARS = 2000
MAX_ID_CHARS = 512
Source = Literal["person", "import", "clicks"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A relevance grade of a document for a query, from 0 (not relevant) to 3 (perfect).

    `source` says whether a person gave it, it was imported, or it was derived from clicks; `by` is the person's key.
    """

    query: str
    document_id: str
    grade: int
    source: Source = "person"
    by: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class FromClicks:
    """The outcome of deriving judgements from clicks. `examination` is the click model's θ by rank."""

    searches: int
    clicks: int
    judged: int
    examination: tuple[float, ...]


class Feedback:
    """The judgements, logged searches and clicks of all collections, stored as records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def judge(self, collection: str, rows: Sequence[Mapping[str, Any]], *, source: Source, by: str = "") -> int:
        """Store judgements; return how many. Each replaces an earlier one of the same query and document.

        Rows have `query`, `document_id` and `grade`. If one is invalid, none is stored: raises InvalidInputError with
        the first bad row, or TooLargeError.
        """
        if len(rows) > MAX_AT_ONCE:
            raise TooLargeError("too many judgements", received=len(rows), expected=f"at most {MAX_AT_ONCE}")
        made = [_judgement(number, row, source, by) for number, row in enumerate(rows)]
        self._records.add([self._record(collection, item) for item in made])
        return len(made)

    @staticmethod
    def _id(collection: str, query: str, document_id: str) -> str:
        return f"{collection}/{_digest(query_key(query))}/{_digest(document_id)}"

    def _record(self, collection: str, judgement: Judgement) -> Record:
        return Record(
            _JUDGEMENT,
            self._id(collection, judgement.query, judgement.document_id),
            asdict(judgement),
            judgement.source,
            collection,
        )

    def judgements(self, collection: str) -> list[Judgement]:
        """Return all judgements of a collection."""
        return [Judgement(**item.body) for item in self._all(_JUDGEMENT, collection)]

    def copy(self, source: str, target: str) -> int:
        """Give a collection the judgements of another, as they are; return how many."""
        found = [self._record(target, item) for item in self.judgements(source)]
        self._records.add(found)
        return len(found)

    def withdraw(self, collection: str, query: str, document_id: str) -> None:
        """Delete a judgement. Raises NotFoundError."""
        if not self._records.remove(_JUDGEMENT, [self._id(collection, query, document_id)]):
            raise NotFoundError("no such judgement", received=f"{query} / {document_id}")

    def qrels(self, collection: str) -> tuple[dict[str, str], Qrels]:
        """Return a collection's judgements as query texts by id, and grades by query id and document id."""
        queries: dict[str, str] = {}
        qrels: Qrels = {}
        for judgement in self.judgements(collection):
            query = _digest(query_key(judgement.query))
            queries[query] = judgement.query
            qrels.setdefault(query, {})[judgement.document_id] = judgement.grade
        return queries, qrels

    def log_impressions(
        self, collection: str, query: str, ranks: Mapping[str, int], *, generation: str, by: str = ""
    ) -> str:
        """Log a result page that was shown (each document's rank); return the search id, which clicks refer to.

        The first 100 documents of a page are kept.
        """
        search_id = sortable_id("s")
        shown = sorted(ranks.items(), key=lambda item: item[1])[:_LOGGED]
        body = {"query": query, "ranks": dict(shown), "generation": generation, "by": by, "at": now()}
        self._records.put(Record(_SEARCH, search_id, body, collection=collection))
        return search_id

    def collection_of(self, search_id: str) -> str:
        """Return the collection of a logged search. Raises NotFoundError."""
        return self._search(search_id).collection

    def _search(self, search_id: str) -> Record:
        found = self._records.get(_SEARCH, search_id)
        if found is None:
            raise NotFoundError("no such search was logged", received=search_id)
        return found

    def click(self, search_id: str, document_id: str) -> int:
        """Log a click on a document of a logged search; return the document's rank. Repeated clicks count once.

        Raises NotFoundError, and InvalidInputError for a document that was not on the page.
        """
        search = self._search(search_id)
        rank = search.body["ranks"].get(document_id)
        if rank is None:
            raise InvalidInputError("the document was not on that page", received=document_id)
        body = {"document_id": document_id, "rank": rank, "at": now()}
        self._records.add([Record(_CLICK, f"{search_id}/{_digest(document_id)}", body, collection=search.collection)])
        return int(rank)

    def pages(self, collection: str) -> list[ResultPage]:
        """Return all logged searches of a collection with their clicks, newest first."""
        clicked: dict[str, set[str]] = {}
        for item in self._all(_CLICK, collection):
            clicked.setdefault(item.id.partition("/")[0], set()).add(item.body["document_id"])
        return [
            ResultPage(query_key(item.body["query"]), item.body["ranks"], frozenset(clicked.get(item.id, ())))
            for item in self._all(_SEARCH, collection)
        ]

    def judge_by_clicks(self, collection: str, *, min_views: int = 10) -> tuple[FromClicks, PositionModel]:
        """Derive judgements from the click log with a position-based click model; return a summary and the model.

        They replace earlier judgements from clicks, but never judgements of people or imports. The time of a judgement
        is that of its newest click, "" for a document that was shown and never clicked. Raises InvalidInputError if
        nothing was logged.
        """
        pages = self.pages(collection)
        model = fit_position_model(pages)
        people = {
            (query_key(judgement.query), judgement.document_id)
            for judgement in self.judgements(collection)
            if judgement.source != "clicks"
        }
        searches = {item.id: item for item in self._all(_SEARCH, collection)}
        texts = {query_key(item.body["query"]): item.body["query"] for item in searches.values()}
        newest: dict[tuple[str, str], str] = {}
        for click in self._all(_CLICK, collection):
            search = searches.get(click.id.partition("/")[0])
            if search is not None:
                what = (query_key(search.body["query"]), click.body["document_id"])
                newest[what] = max(newest.get(what, ""), click.body["at"])
        made = [
            Judgement(texts[query], document, grade, "clicks", at=newest.get((query, document), ""))
            for query, grades in model.grades(min_views=min_views).items()
            for document, grade in grades.items()
            if (query, document) not in people
        ]
        old = [item.id for item in self._all(_JUDGEMENT, collection, states=("clicks",))]
        new = [self._record(collection, item) for item in made]
        for at in range(0, len(new), _PAGE):
            self._records.add(new[at : at + _PAGE])
        gone = sorted(set(old) - {item.id for item in new})
        for at in range(0, len(gone), _PAGE):
            self._records.remove(_JUDGEMENT, gone[at : at + _PAGE])
        clicks = sum(len(page.clicked) for page in pages)
        return FromClicks(len(pages), clicks, len(made), model.examination), model

    def tidy(self, keep_days: float) -> int:
        """Delete logged searches older than `keep_days`, and their clicks; return how many searches."""
        oldest = oldest_id("s", keep_days)
        remove_older(self._records, _CLICK, oldest)
        return remove_older(self._records, _SEARCH, oldest)

    def _all(self, kind: str, collection: str, states: Sequence[str] = ()) -> list[Record]:
        found: list[Record] = []
        before = None
        while True:
            page = self._records.list(kind, collection=collection, states=states, before=before, limit=_PAGE)
            found += page
            if len(page) < _PAGE:
                return found
            before = page[-1].id


def query_key(query: str) -> str:
    """Return the normal form by which queries are compared: folded, lower case, single spaces."""
    return " ".join(fold(query).lower().split())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _judgement(number: int, row: Mapping[str, Any], source: Source, by: str) -> Judgement:
    def bad(what: str, received: object, expected: str) -> InvalidInputError:
        return InvalidInputError(f"judgement {number}: {what}", received=received, expected=expected)

    query = check_text(row.get("query"), f"judgement {number}: query")
    document = check_text(row.get("document_id"), f"judgement {number}: document_id")
    grade = row.get("grade")
    if not query.strip() or len(query) > MAX_QUERY_CHARS:
        raise bad("bad query", query, f"1 to {MAX_QUERY_CHARS} characters")
    if not 0 < len(document) <= MAX_ID_CHARS:
        raise bad("bad document id", document, f"1 to {MAX_ID_CHARS} characters")
    if isinstance(grade, bool) or not isinstance(grade, int) or not 0 <= grade <= MAX_GRADE:
        raise bad("bad grade", grade, f"0 to {MAX_GRADE}")
    return Judgement(query, document, grade, source, by, now())


def write_beir(folder: Path, queries: Mapping[str, str], qrels: Qrels, texts: Mapping[str, tuple[str, str]]) -> None:
    """Write judgements as a BEIR folder with one split, `train`, which `hyblink train`, `tune` and `evaluate` read.

    `texts` has the title and text of each judged document. Raises InvalidInputError if the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInputError("the folder is not empty", received=str(folder), expected="a new one")
    (folder / "qrels").mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: list[str]) -> None:
        (folder / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")

    write("queries.jsonl", [json.dumps({"_id": item, "text": text}) for item, text in queries.items()])
    write(
        "corpus.jsonl",
        [json.dumps({"_id": item, "title": title, "text": text}) for item, (title, text) in texts.items()],
    )
    write(
        "qrels/train.tsv",
        ["query-id\tcorpus-id\tscore"]
        + [f"{query}\t{document}\t{grade}" for query, grades in qrels.items() for document, grade in grades.items()],
    )
