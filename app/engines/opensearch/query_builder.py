"""Builds the JSON of OpenSearch queries. Nothing here sends a request.

The project's analyzer produces the terms, and each becomes a `term` clause. A `match` query would treat the parts of
an identifier, which share one position, as synonyms and score them together.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from hyblink.app.core.filters import And, Exists, Filter, Not, Or, Range, Terms, facets_of
from hyblink.app.core.types.arrays import IdArray, TermWeights
from hyblink.app.core.types.documents import Metadata, MetaScalar

Json = dict[str, Any]

MAX_CLAUSES = 1024
"""The default `indices.query.bool.max_clause_count` of OpenSearch. Queries with more clauses are refused."""

_FRAME = 16
"""The number of clauses of a request that belong neither to the query nor to the filter."""

_TOP_BIT = 1 << 63
_ALL_BITS = (1 << 64) - 1
_SEPARATOR = "\x1f"
_LONGEST = 1024
"""Longer facet values are stored as a hash, because Lucene refuses terms over 32,766 bytes."""


def facet(key: str, value: MetaScalar) -> str:
    """The keyword that encodes "key has value" in the field `facets`. Strings and numbers get distinct keywords.

    >>> facet("kind", "class"), facet("line", 3), facet("open", True)
    ('kind\\x1f$class', 'line\\x1f#3.0', 'open\\x1f$true')
    """
    if isinstance(value, bool):
        value = "true" if value else "false"
    said = f"${value}" if isinstance(value, str) else f"#{float(value) + 0.0!r}"
    if len(said) > _LONGEST:
        said = "%" + hashlib.sha256(said.encode()).hexdigest()
    return f"{key}{_SEPARATOR}{said}"


def number_address(key: str, number: float) -> str:
    """A metadata number as an IPv6 address: 64 bits of the key's hash, then 64 order-preserving bits of the number.

    So one field of type `ip` supports exact range queries over any number of metadata keys, and users' keys do not
    become fields of the mapping.

    >>> number_address("n", -1.5) < number_address("n", 0.0) < number_address("n", 2e-9)
    True
    """
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))  # -0.0 + 0.0 is 0.0
    ordered = bits ^ (_ALL_BITS if bits >> 63 else _TOP_BIT)
    named = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") | _TOP_BIT
    return ipaddress.IPv6Address(named << 64 | ordered).exploded


def metadata_fields(metadata: Metadata) -> Json:
    """The index fields for a passage's metadata: `facets`, `keys` and `numbers` for filters, and `metadata` itself."""
    facets: list[str] = []
    keys: list[str] = []
    numbers: list[str] = []
    for key, value in metadata.items():
        found = facets_of(value)
        if found:
            keys.append(key)
        for text, number in found:
            if text is not None:
                facets.append(facet(key, text))
            elif number is not None:
                facets.append(facet(key, number))
            if number is not None:
                numbers.append(number_address(key, number))
    return {"facets": facets, "keys": keys, "numbers": numbers, "metadata": dict(metadata)}


def filter_clause(tree: Filter) -> Json:
    """The OpenSearch query of a metadata filter, equivalent to `core.filters.matches`."""
    match tree:
        case Terms(key, values):
            return {"terms": {"facets": sorted({facet(key, value) for value in values})}}
        case Range(key, low, high, low_inclusive, high_inclusive):
            bounds: Json = {
                "gte" if low_inclusive else "gt": number_address(key, -math.inf if low is None else low),
                "lte" if high_inclusive else "lt": number_address(key, math.inf if high is None else high),
            }
            return {"range": {"numbers": bounds}}
        case Exists(key):
            return {"term": {"keys": key}}
        case And(clauses):
            return {"bool": {"filter": [filter_clause(clause) for clause in clauses]}}
        case Or(clauses):
            return {"bool": {"should": [filter_clause(clause) for clause in clauses], "minimum_should_match": 1}}
        case Not(clause):
            return {"bool": {"must_not": [filter_clause(clause)]}}


def budget(tree: Filter | None) -> int:
    """The number of clauses left for the query beside this filter, given `MAX_CLAUSES`."""

    def size(node: Filter) -> int:
        match node:
            case And(clauses) | Or(clauses):
                return 1 + sum(size(clause) for clause in clauses)
            case Not(clause):
                return 1 + size(clause)
            case _:
                return 1

    return MAX_CLAUSES - _FRAME - (0 if tree is None else 2 * size(tree))


def bm25_query(terms: Sequence[str], limit: int = MAX_CLAUSES - _FRAME) -> Json:
    """The BM25 query: a disjunction of the terms, each boosted by its count in the query.

    Only the first `limit` distinct terms are kept.
    """
    clauses: list[Json] = []
    for term, count in Counter(terms).items():
        said: Json = {"value": term}
        if count > 1:
            said["boost"] = float(count)
        clauses.append({"term": {"content": said}})
    return {"bool": {"should": clauses[:limit], "minimum_should_match": 1}}


def named_bm25(terms: Sequence[str], change: int, rows: IdArray) -> Json:
    """The BM25 search of the given passages with a named clause per term, so that each term's score is returned."""
    query = bm25_query(terms)
    for clause in query["bool"]["should"]:
        clause["term"]["content"]["_name"] = clause["term"]["content"]["value"]
    return completion(query, change, rows)


def sparse_query(query: TermWeights, field: str, limit: int = MAX_CLAUSES - _FRAME) -> Json:
    """The dot product of the query's `limit` largest weights with a `rank_features` field, one clause per weight."""
    pairs = sorted(zip(query.ids.tolist(), query.weights.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    clauses = [
        {"rank_feature": {"field": f"{field}.{token}", "boost": weight, "linear": {}}}
        for token, weight in pairs[:limit]
    ]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def plugin_sparse_query(query: TermWeights, field: str) -> Json:
    """The dot product as one clause of the hyblink plugin, with all tokens of the query."""
    weights = {str(token): weight for token, weight in zip(query.ids.tolist(), query.weights.tolist(), strict=True)}
    return {"vdr": {"field": field, "weights": weights}}


def encoded_by(query: Json, change: int) -> Json:
    """`query` limited to passages that were encoded at or before the counter `change`.

    Encoding adds weights to a passage that is already visible, so `seen_at` alone would not exclude later weights.
    """
    return {"bool": {"must": [query], "filter": [{"range": {"vector_change": {"lte": change}}}]}}


def seen_at(change: int, filters: Sequence[Json] = (), must_not: Sequence[Json] = ()) -> Json:
    """The query of all entries visible at the counter `change` that pass the filter clauses."""
    return {
        "bool": {
            "filter": [{"range": {"change": {"lte": change}}}, *filters],
            "must_not": [{"range": {"removed": {"lte": change}}}, *must_not],
        }
    }


def scored(query: Json, change: int, filters: Sequence[Json] = ()) -> Json:
    """`query` limited to the passages visible at the counter `change` that pass the filter clauses."""
    found = seen_at(change, filters)
    found["bool"]["must"] = [query]
    return found


def leg(query: Json, change: int, k: int, filters: Sequence[Json] = ()) -> Json:
    """The search for the k best passages of one signal: best first, ties by ascending row."""
    return {
        "query": scored(query, change, filters),
        "sort": [{"_score": "desc"}, {"row": "asc"}],
        **rows_only(k),
    }


def completion(query: Json, change: int, rows: IdArray) -> Json:
    """The search for the exact scores of the given passages. Passages that do not match are not returned."""
    wanted = rows.tolist()
    return {"query": scored(query, change, [{"terms": {"row": wanted}}]), **rows_only(len(wanted))}


def ahead(query: Json, change: int, score: float, row: int) -> list[Json]:
    """Two searches whose hit counts sum to the number of passages ranked before one with this score and row."""
    above = float(np.nextafter(np.float32(score), np.float32(np.inf)))
    counted: Json = {"size": 0, "track_total_hits": True}
    tied = [{"range": {"row": {"lt": row}}}]
    return [
        {**counted, "min_score": above, "query": scored(query, change, [{"range": {"row": {"gt": row}}}])},
        {**counted, "min_score": float(np.float32(score)), "query": scored(query, change, tied)},
    ]


def token_frequencies(tokens: Sequence[int], field: str, change: int) -> Json:
    """The search for each token's document frequency, in passages, and the total number of passages."""
    return {
        "size": 0,
        "track_total_hits": True,
        "query": seen_at(change),
        "aggs": {
            "tokens": {
                "filters": {
                    "filters": {
                        str(token): {"rank_feature": {"field": f"{field}.{token}", "linear": {}}} for token in tokens
                    }
                }
            }
        },
    }


def rows_only(k: int) -> Json:
    """The part of a search body that makes it return k rows with scores and nothing else."""
    return {
        "size": k,
        "_source": False,
        "docvalue_fields": ["row"],
        "track_total_hits": False,
        "track_scores": True,
    }
