"""A small knowledge base and helpers shared by the linking tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hyblink.app.application import App
from hyblink.app.core.types.arrays import ScoreArray
from hyblink.app.core.types.linking import LinkRequest, MentionContext, Text
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection

KB = "things"


ENTITIES = [
    {"id": "py-lang", "title": "Python", "description": "A programming language by Guido.", "kind": "language",
     "aliases": ["CPython", "py"]},
    {"id": "py-snake", "title": "Python", "description": "A large snake that is not venomous.", "kind": "animal"},
    {"id": "monty", "title": "Monty Python", "description": "A British comedy group.", "kind": "group",
     "aliases": ["The Pythons"]},
    {"id": "lisp", "title": "Lisp", "description": "A family of programming languages.", "kind": "language"},
    {"id": "it", "title": "Information technology", "aliases": ["IT"], "description": "Computers at work."},
    {"id": "table", "title": "hash table", "description": "A structure that maps keys to values."},
    {"id": "c", "title": "C", "description": "A programming language by Ritchie.", "kind": "language"},
    {"id": "tokyo", "title": "東京", "description": "Capital of Japan.", "world": "ja"},
]  # fmt: skip


@pytest.fixture
def kb(app: App) -> App:
    """The application with the encoded knowledge base `KB` of `ENTITIES`."""
    ensure_collection(app, entity_spec(KB))
    result = app.entities.bulk(KB, ENTITIES)
    assert not result.errors
    assert app.jobs.wait(60)
    return app


def linked(app: App, text: str, **options: object):  # type: ignore[no-untyped-def]
    """Link one text without threshold and re-ranking. `options` are further fields of the request."""
    request = LinkRequest((Text(text),), threshold=0.0, rerank=False, **options)  # type: ignore[arg-type]
    return app.linker.link(KB, request)


def spans(app: App, text: str) -> list[str]:
    """The texts of the detected mentions; asserts that their offsets are right."""
    found = linked(app, text).texts[0].links
    for one in found:
        assert text[one.mention.start : one.mention.end] == one.mention.text
    return [one.mention.text for one in found]


class Reads:
    """A fake cross-encoder: 9 for descriptions that start with `likes`, else -9; NaN after the deadline.

    `read` records (mention, number of candidates) of every call.
    """

    id = "cross:reads"

    def __init__(self, likes: str) -> None:
        self.likes = likes
        self.read: list[tuple[str, int]] = []

    def load(self) -> None: ...

    def score(
        self, mentions: Sequence[MentionContext], entities: Sequence[Sequence[tuple[str, str]]], deadline: float
    ) -> list[ScoreArray]:
        """The fake scores of each mention's candidates, given as (title, description)."""
        import time

        made = []
        for mention, own in zip(mentions, entities, strict=True):
            late = time.perf_counter() >= deadline
            self.read.append((mention.mention, len(own)))
            made.append(
                np.array([np.nan if late else (9.0 if d.startswith(self.likes) else -9.0) for _, d in own], "f")
            )
        return made
