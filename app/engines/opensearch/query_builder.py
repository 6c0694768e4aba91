"""Requests as data: what is asked of OpenSearch, without asking it.

Terms are made by our analyzer and asked for one by one: a `match` query would take the parts of an identifier, which
stand at one position, for synonyms and score them together.
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
"""`indices.query.bool.max_clause_count` of a stock cluster; more clauses are refused."""

_FRAME = 16
"""Clauses of a request beside those of the query and the filter."""

_TOP_BIT = 1 << 63
_ALL_BITS = (1 << 64) - 1
_SEPARATOR = "\x1f"
_LONGEST = 1024
"""Longer facet values are kept as a hash: Lucene refuses terms over 32,766 bytes."""


def facet(key: str, value: MetaScalar) -> str:
    """The keyword that says that a key has a value. Strings and numbers never look alike.

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
    """A number of a key as an IPv6 address: 64 bits of the key's hash, then the number in an order that survives.

    One field then answers ranges over any number of keys, each an exact range of 16-byte points, and no key of a user
    becomes a field of the mapping.

    >>> number_address("n", -1.5) < number_address("n", 0.0) < number_address("n", 2e-9)
    True
    """
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))  # -0.0 + 0.0 is 0.0
    ordered = bits ^ (_ALL_BITS if bits >> 63 else _TOP_BIT)
    named = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") | _TOP_BIT
    return ipaddress.IPv6Address(named << 64 | ordered).exploded


def metadata_fields(metadata: Metadata) -> Json:
    """The fields of a passage that filters look at, and the metadata itself."""
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
    """The query that says what `app.core.filters.matches` says."""
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
    """How many clauses a query may have beside this filter."""

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
    """BM25 over the passages' content: any of the terms, each as often as it stands in the query.

    The first `limit` distinct terms are kept.
    """
    clauses: list[Json] = []
    for term, count in Counter(terms).items():
        said: Json = {"value": term}
        if count > 1:
            said["boost"] = float(count)
        clauses.append({"term": {"content": said}})
    return {"bool": {"should": clauses[:limit], "minimum_should_match": 1}}


def named_bm25(terms: Sequence[str], change: int, rows: IdArray) -> Json:
    """BM25 of the given passages where each term is named, for its own score."""
    query = bm25_query(terms)
    for clause in query["bool"]["should"]:
        clause["term"]["content"]["_name"] = clause["term"]["content"]["value"]
    return completion(query, change, rows)


def sparse_query(query: TermWeights, field: str, limit: int = MAX_CLAUSES - _FRAME) -> Json:
    """The dot product of the query's heaviest `limit` weights with those of a `rank_features` field."""
    pairs = sorted(zip(query.ids.tolist(), query.weights.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    clauses = [
        {"rank_feature": {"field": f"{field}.{token}", "boost": weight, "linear": {}}}
        for token, weight in pairs[:limit]
    ]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def plugin_sparse_query(query: TermWeights, field: str) -> Json:
    """The same dot product by our plugin's query: all tokens, one clause."""
    weights = {str(token): weight for token, weight in zip(query.ids.tolist(), query.weights.tolist(), strict=True)}
    return {"vdr": {"field": field, "weights": weights}}


def encoded_by(query: Json, change: int) -> Json:
    """A query for passages that had been encoded by a change: weights are added to a passage that is there already."""
    return {"bool": {"must": [query], "filter": [{"range": {"vector_change": {"lte": change}}}]}}


def seen_at(change: int, filters: Sequence[Json] = (), must_not: Sequence[Json] = ()) -> Json:
    """The query of all entries that belong to a change and pass the clauses."""
    return {
        "bool": {
            "filter": [{"range": {"change": {"lte": change}}}, *filters],
            "must_not": [{"range": {"removed": {"lte": change}}}, *must_not],
        }
    }


def scored(query: Json, change: int, filters: Sequence[Json] = ()) -> Json:
    """A query over the passages of a change that pass the filters."""
    found = seen_at(change, filters)
    found["bool"]["must"] = [query]
    return found


def leg(query: Json, change: int, k: int, filters: Sequence[Json] = ()) -> Json:
    """The k best passages: best first, ties by ascending row."""
    return {
        "query": scored(query, change, filters),
        "sort": [{"_score": "desc"}, {"row": "asc"}],
        **rows_only(k),
    }


def completion(query: Json, change: int, rows: IdArray) -> Json:
    """The exact scores of the given passages; those that do not match are not answered."""
    wanted = rows.tolist()
    return {"query": scored(query, change, [{"terms": {"row": wanted}}]), **rows_only(len(wanted))}


def ahead(query: Json, change: int, score: float, row: int) -> list[Json]:
    """Two searches whose counts add up to the passages that stand before one with this score and row."""
    above = float(np.nextafter(np.float32(score), np.float32(np.inf)))
    counted: Json = {"size": 0, "track_total_hits": True}
    tied = [{"range": {"row": {"lt": row}}}]
    return [
        {**counted, "min_score": above, "query": scored(query, change, [{"range": {"row": {"gt": row}}}])},
        {**counted, "min_score": float(np.float32(score)), "query": scored(query, change, tied)},
    ]


def token_frequencies(tokens: Sequence[int], field: str, change: int) -> Json:
    """In how many passages each token has a weight, and how many passages there are."""
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
    """The parts of a search that answers with rows and scores and nothing else."""
    return {
        "size": k,
        "_source": False,
        "docvalue_fields": ["row"],
        "track_total_hits": False,
        "track_scores": True,
    }
