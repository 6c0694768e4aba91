"""Compiles metadata filters to SQL conditions."""

from __future__ import annotations

from typing import Any

import orjson

from hyblink.app.core.filters import And, Exists, Filter, Not, Or, Range, Terms
from hyblink.app.core.types.documents import (
    MetaScalar,
)


def condition_of(tree: Filter) -> tuple[str, list[Any]]:
    """(SQL condition on the table alias `d` of documents, its bound values), equivalent to `core.filters.matches`."""

    def facet(condition: str, values: list[Any]) -> tuple[str, list[Any]]:
        return f"d.pk IN (SELECT f.doc_pk FROM facets f WHERE {condition})", values

    match tree:
        case Terms(key, values):
            texts = [_text(value) for value in values if isinstance(value, str | bool)]
            numbers = [float(value) for value in values if not isinstance(value, str | bool)]
            parts = []
            if texts:
                parts.append(f"f.text IN (SELECT value FROM json_each({'?'}))")
            if numbers:
                parts.append("f.text IS NULL AND f.number IN (SELECT value FROM json_each(?))")
            bound = [orjson.dumps(some).decode() for some in (texts, numbers) if some]
            return facet(f"f.key = ? AND ({' OR '.join(parts)})", [key, *bound])
        case Range(key, low, high, low_inclusive, high_inclusive):
            parts, bounds = ["f.key = ?", "f.number IS NOT NULL"], []
            if low is not None:
                parts.append(f"f.number {'>=' if low_inclusive else '>'} ?")
                bounds.append(low)
            if high is not None:
                parts.append(f"f.number {'<=' if high_inclusive else '<'} ?")
                bounds.append(high)
            return facet(" AND ".join(parts), [key, *bounds])
        case Exists(key):
            return facet("f.key = ?", [key])
        case And(clauses) | Or(clauses):
            compiled = [condition_of(clause) for clause in clauses]
            joint = " AND " if isinstance(tree, And) else " OR "
            return "(" + joint.join(sql for sql, _ in compiled) + ")", [v for _, values in compiled for v in values]
        case Not(clause):
            sql, inner = condition_of(clause)
            return f"NOT {sql}", inner


def _text(value: MetaScalar) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
