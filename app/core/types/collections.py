"""Collections and their generations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """A collection's fixed choices. What is bound to vectors lives in the generation."""

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
    """A collection's documents are to be annotated with the entities of this knowledge base as they come."""

    kb: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """What one generation binds. Immutable once published."""

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
    """The encoder of VDR weights; empty where passages have bags of tokens only. `vdr_encoder` is their vocabulary."""
