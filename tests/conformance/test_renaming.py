"""Copies and renamed collections hold what the original held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hyblink.app.application import App
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import RankingProfile
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.renaming import copy_collection, rename_collection


def test_a_copy_has_what_was_made_for_the_collection(make_app: Callable[..., App]) -> None:
    app = make_app()
    ensure_collection(app, CollectionSpec("c", chunk_chars=100, chunk_overlap_chars=0, analyzer="standard"))
    app.documents.bulk("c", [{"id": str(n), "text": f"word{n} " * 40} for n in range(20)], encode=False)
    encode_now(app, "c")
    app.catalog.save_profile("c", RankingProfile(fusion="rrf"))
    app.feedback.judge("c", [{"query": "word1", "document_id": "1", "grade": 3}], source="human")
    assert copy_collection(app, "c", "d") == 20
    one, two = (app.catalog.engine(name).store.reader() for name in "cd")
    assert two.counts().encoded == one.counts().encoded == one.counts().passages > 20
    for left, right in zip(one.export(), two.export(), strict=True):
        assert left.document == right.document
        assert left.windows == right.windows
        assert np.array_equal(left.vectors, right.vectors)  # type: ignore[arg-type]
    assert replace(app.catalog.spec("d"), name="c") == app.catalog.spec("c")
    assert app.catalog.profile("d", "g000001").fusion == "rrf"
    assert [(j.query, j.document_id, j.grade) for j in app.feedback.judgements("d")] == [("word1", "1", 3)]
    app.documents.delete("d", ["3"])
    assert app.documents.get("c", "3").id == "3"
    assert rename_collection(app, "d", "e") == 19
    assert app.catalog.names() == ["c", "e"]
    assert app.catalog.engine("e").check() == app.catalog.engine("c").check() == []
