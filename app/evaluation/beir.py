"""Read the judged queries of a BEIR folder."""

from __future__ import annotations

from pathlib import Path

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.evaluation.json_lines import existing, parsed
from hyblink.app.evaluation.qrels import Qrels, read_qrels


def read_queries(folder: Path) -> dict[str, str]:
    """Read query texts by id from `queries.jsonl[.gz]`, with rows `{"_id": …, "text": …}`.

    Raises NotFoundError, InvalidInputError.
    """
    path = existing(folder, "queries.jsonl", "queries.jsonl.gz")
    read = parsed(path, lambda row: (str(row["_id"]), str(row["text"])), "query", '{"_id": …, "text": …}')
    return dict(read)


def read_beir(folder: Path, split: str) -> tuple[dict[str, str], Qrels]:
    """Read the judged queries of a split (texts by id) and their judgements.

    Raises NotFoundError, and InvalidInputError for bad rows or judged queries without a text.
    """
    qrels = read_qrels(existing(folder / "qrels", f"{split}.tsv"))
    queries = read_queries(folder)
    missing = [query for query in qrels if query not in queries]
    if missing:
        raise InvalidInputError(
            "judged queries without a text", received=missing[:5], expected="a row in queries.jsonl"
        )
    return {query: queries[query] for query in qrels}, qrels
