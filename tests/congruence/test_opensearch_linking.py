"""Linking on a real OpenSearch equals linking on the embedded engine: mentions, candidates, signals, decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.documents import WORDS
from support.encoders import use_fake_encoder

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import OpenSearchSettings, Settings
from hyblink.app.core.types.linking import LinkRequest, LinkResult, NameCounts, Text
from hyblink.app.engines.catalog import Catalog
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.linking.disambiguation import SHIPPED
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.generations import build_context, encoders_of, roll_back
from hyblink.indexer.generations.build import build as build_generation

pytestmark = pytest.mark.services
KB = "things"
_TOLERANCE = 2e-3
"""Utilities: BM25 and dense scores agree to 1e-4, and are divided by their spread over the candidates."""


@pytest.fixture(scope="module")
def pair(local_cluster: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, App]]:
    state = local_cluster().state()
    assert state is not None
    options = OpenSearchSettings(hosts=state.urls, prefix=f"link-{time.time_ns()}", keep_removed_s=0)
    folder = tmp_path_factory.mktemp("link")
    apps = (
        build(Settings(data_dir=folder / "embedded")),
        build(Settings(engine="opensearch", data_dir=folder / "cluster", opensearch=options)),
    )
    for app in apps:
        use_fake_encoder(app)
        ensure_collection(app, entity_spec(KB))
    yield apps
    for app in apps:
        app.close()


def entities(rng: np.random.Generator, count: int) -> list[dict[str, object]]:
    def words(low: int, high: int) -> str:
        return " ".join(rng.choice(WORDS, int(rng.integers(low, high))))

    return [
        {
            "id": f"e{rng.integers(60)}-{number}",
            "title": words(1, 3),
            "aliases": [words(1, 3) for _ in range(int(rng.integers(3)))],
            "description": words(5, 25),
            "kind": str(rng.choice(["person", "place"])),
        }
        for number in range(count)
    ]


def texts(rng: np.random.Generator) -> tuple[Text, ...]:
    return tuple(Text(" ".join(rng.choice(WORDS, 12))) for _ in range(3))


def same(one: LinkResult, other: LinkResult) -> None:
    for left, right in zip(one.texts, other.texts, strict=True):
        assert [link.mention for link in left.links] == [link.mention for link in right.links]
        for a, b in zip(left.links, right.links, strict=True):
            expected = {c.entity_id: c for c in a.candidates}
            found = {c.entity_id: c for c in b.candidates}
            assert set(expected) == set(found)
            for entity, wanted in expected.items():
                assert found[entity].utility == pytest.approx(wanted.utility, abs=_TOLERANCE)
                assert [s.signal for s in found[entity].signals] == [s.signal for s in wanted.signals]
            assert b.probability == pytest.approx(a.probability, abs=_TOLERANCE)
            if abs(a.probability - one.threshold) > _TOLERANCE:
                assert a.reason == b.reason


def compacted(app: App) -> None:
    app.catalog.engine(KB).compact(patience_s=90)


def test_the_same_links_through_changes(pair: tuple[App, App]) -> None:
    rng = np.random.default_rng(5)
    known: list[str] = []
    for round_ in range(4):
        rows = entities(rng, 40)
        gone = [str(one) for one in rng.choice(known, 8, replace=False)] if known else []
        known = [one for one in known if one not in gone] + [str(row["id"]) for row in rows]
        for app in pair:
            assert not app.entities.bulk(KB, rows).errors
            if gone:
                assert all(item.status == "deleted" for item in app.entities.remove(KB, gone).items)
            assert app.jobs.wait(60)
            compacted(app)  # removed passages leave BM25's statistics
        meant = {str(word): {str(one): 2.0} for word, one in zip(WORDS, rng.choice([*known, *gone], 20), strict=False)}
        meant[".e.g. json.dump"] = {known[0]: 1.0, "mod.name": 1.0}  # no path of fields
        for app in pair:
            app.catalog.save_link_profile(KB, SHIPPED, NameCounts(meant) if round_ % 2 else None)
        for number in range(6):
            request = LinkRequest(
                texts(rng),
                shown=200,  # all of them: lists cut at equal scores by row, and rows differ between engines
                candidates=200,
                rerank=False,
                coherence=1.0 if number % 2 else None,
                filter={"term": {"kind": "place"}} if number % 3 == 1 else None,
                exclude=tuple(known[:3]),
            )
            embedded, cluster = (app.linker.link(KB, request) for app in pair)
            assert any(link.candidates for text in embedded.texts for link in text.links), round_
            same(embedded, cluster)


def test_a_removed_entity_stays_removed_on_the_cluster(pair: tuple[App, App], tmp_path: Path) -> None:
    app = pair[1]

    def found() -> list[str | None]:
        request = LinkRequest((Text("a quokka"),), threshold=0.0, rerank=False)
        return [link.entity_id for link in app.linker.link(KB, request).texts[0].links]

    assert found() == []
    app.entities.bulk(KB, [{"id": "q", "title": "Setonix", "aliases": ["quokka"]}])
    assert found() == ["q"]
    catalog: Catalog = app.catalog
    record = new_record(app, catalog.spec(KB), parent=catalog.current(KB))
    build_generation(build_context(app), record, **encoders_of(app, record), keep=3)
    assert found() == ["q"]
    app.entities.remove(KB, ["q"])
    assert found() == []
    roll_back(app, KB)
    assert found() == []
