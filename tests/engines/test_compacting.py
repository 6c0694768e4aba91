"""Compacting: tombstones are forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from support.documents import random_documents
from support.generations import answers, filled

from hyblink.app.application import App
from hyblink.app.operations.encoding import encode_now


def test_compacting_forgets_what_every_index_has_removed(make_app: Callable[..., App]) -> None:
    app, late = filled(make_app), make_app("data")
    assert answers(late) == answers(app)
    engine = app.catalog.engine("c")

    def remembered() -> int:
        connection = sqlite3.connect(engine.store.path)
        (count,) = connection.execute("SELECT count(*) FROM tombstones").fetchone()
        connection.close()
        return int(count)

    for round_ in range(3):
        app.documents.bulk("c", random_documents(200, seed=10 + round_), encode=False)  # other texts, same ids
        encode_now(app, "c")
        app.documents.bulk("c", [{"id": "brief", "text": f"it came and went {round_}"}], encode=False)
        app.documents.delete("c", ["brief"])  # no index ever sees it
        assert remembered() > 120
        engine.compact()
        assert remembered() == 0
        assert answers(late) == answers(app), "an index that another process holds open follows"
        assert late.catalog.engine("c").check() == engine.check() == []
    app.documents.delete("c", ["doc0"])
    assert remembered() >= 1
    fresh = make_app("data")
    assert "doc0" not in {doc for doc, _ in answers(fresh)}
