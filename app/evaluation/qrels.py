"""Read relevance judgements (qrels) from BEIR and TREC files."""

from __future__ import annotations

from pathlib import Path

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.evaluation.json_lines import MAX_FILE_BYTES
from hyblink.indexer.readers.rows import decode, read_bounded

Qrels = dict[str, dict[str, int]]


def read_qrels(path: Path) -> Qrels:
    """Read judgements, query → document → grade.

    The file has BEIR's three columns with a header, or TREC's four (`query 0 document grade`). Raises
    InvalidInputError.
    """
    qrels: Qrels = {}
    text = decode(read_bounded(path, MAX_FILE_BYTES))
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if not fields or (number == 1 and fields[0] == "query-id"):
            continue
        if len(fields) not in {3, 4}:
            raise InvalidInputError(
                f"{path.name}:{number}: bad judgement", received=line, expected="query, document, grade"
            )
        try:
            qrels.setdefault(fields[0], {})[fields[-2]] = int(fields[-1])
        except ValueError as error:
            raise InvalidInputError(
                f"{path.name}:{number}: bad grade", received=fields[-1], expected="an integer"
            ) from error
    return qrels
