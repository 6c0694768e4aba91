"""Collections and their generations.

A generation is one complete copy of a collection's data and indexes, built with one analyzer and one set of encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """The options chosen when a collection is created. Chunk sizes are in code points.

    The encoder ids that a generation was really built with are in its `GenerationRecord`.
    """

    name: str
    kind: Literal["passages", "entities"] = "passages"
    analyzer: str = "english"
    dense_encoder: str = "default"
    vdr_encoder: str = "default"
    dense_index: str = "auto"
    chunk_chars: int = 1200
    chunk_overlap_chars: int = 150


@dataclass(frozen=True, slots=True)
class Annotation:
    """The option to annotate a collection's new documents with entities of the knowledge base `kb`.

    `threshold` is the least link probability that counts, 0 to 1. None takes the knowledge base's own threshold.
    """

    kb: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """The analyzer, encoders and index type that one generation was built with. Immutable once published.

    `parent` is the id of the generation that it was rebuilt from, empty for the first one.
    """

    id: str
    collection: str
    created: str
    schema_version: int
    analyzer: str
    dense_encoder: str
    dense_dimension: int
    vdr_encoder: str
    dense_index: str
    parent: str = ""
    note: str = ""
    vdr_model: str = ""
    """The id of the encoder of VDR weights; empty if passages have bags of tokens only.

    `vdr_encoder` is the id of the vocabulary of the bags of tokens.
    """
