"""Background work on every engine: jobs read to their end, and processes share what waits without doing it twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import orjson
import pytest
from support.documents import random_documents
from support.encoders import FakeDense

from hyblink.app.application import App
from hyblink.app.core.settings import IngestSettings, JobsSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.jobs.claims import KIND, Claims
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import build_context, encoders_of
from hyblink.app.operations.jobs import start_ingestion


class CountingDense(FakeDense):
    """Notes every text that it encodes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        self.texts += texts
        time.sleep(0.05)
        return super().encode_passages(titles, texts)


def counting(app: App) -> CountingDense:
    made = CountingDense()
    app.encoders.add_dense(made)
    app.encoders.use_as_default(made.id)
    return made


def test_several_who_encode_share_what_waits(make_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyblink.indexer.encode.BLOCK", 7)
    apps = [make_app() for _ in range(3)]
    encoders = [counting(app) for app in apps]
    ensure_collection(apps[0], CollectionSpec("c", chunk_chars=0, chunk_overlap_chars=0))
    documents = [{"id": f"d{n}", "text": f"text number {n}"} for n in range(150)]
    apps[0].documents.bulk("c", documents, encode=False)
    threads = [threading.Thread(target=partial(encode_now, app), args=["c"]) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    encoded = [text for encoder in encoders for text in encoder.texts]
    assert sorted(encoded) == sorted(one["text"] for one in documents), "each once"
    assert all(encoder.texts for encoder in encoders), "by all of them"
    counts = apps[0].catalog.engine("c").store.reader().counts()
    assert counts.encoded == counts.passages == 150
    claims = apps[0].catalog.records().get(KIND, "c/g000001")
    assert claims is not None
    assert claims.body == {"claims": []}


def test_claims_run_out_and_those_of_the_dead_are_void(make_app: Callable[..., App]) -> None:
    app = make_app()
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", random_documents(20, seed=1), encode=False)
    engine, records = app.catalog.engine("c"), app.catalog.records()
    waiting = engine.store.reader().unencoded(1000).tolist()
    short, other = Claims(records, lease_s=0.3), Claims(records, lease_s=60)
    with short.some(engine, 1000) as mine:
        assert mine.tolist() == waiting
        assert other.live(engine)
        with other.some(engine, 1000) as none:
            assert none.tolist() == []
        time.sleep(0.4)
        assert not other.live(engine)
        with other.some(engine, 3) as some:
            assert some.tolist() == waiting[:3]
            with other.some(engine, 3) as more:
                assert more.tolist() == waiting[3:6]
    record = records.get(KIND, "c/g000001")
    assert record is not None
    host = Claims(records, lease_s=60)._owner.split(" ")[0]
    dead = {"owner": f"{host} 999999 1.00 0000", "mark": "x", "until": time.time() + 60, "rows": waiting}
    records.put(type(record)(KIND, record.id, {"claims": [dead]}, version=record.version))
    assert not other.live(engine)
    with other.some(engine, 1000) as mine:
        assert mine.tolist() == waiting


def test_a_job_reads_to_the_end_and_another_generation_knows_it(make_app: Callable[..., App], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in random_documents(40, seed=3)) + b"{}\n")
    # A slice reads one row at least, however short it is.
    jobs = JobsSettings(broker="none", roots=(tmp_path,), slice_s=1e-9)  # type: ignore[arg-type]
    app = make_app(jobs=jobs, ingest=IngestSettings(batch_documents=7))
    job = start_ingestion(app, "c", {"folder": str(path)})
    for _ in range(200):
        assert app.jobs.wait(30)  # type: ignore[union-attr]
        if app.job_records.get(job.id).state in {"done", "failed"}:
            break
        time.sleep(0.05)
    done = app.job_records.get(job.id)
    assert (done.state, done.error) == ("done", "")
    assert (done.progress["created"], done.progress["rejected"], done.progress["rows"]) == (40, 1, 41)
    assert done.fence > 3, "it was read in slices"
    assert [one["line"] for one in app.job_records.rejects(job.id)] == [41]
    assert app.jobs.wait(30)  # type: ignore[union-attr]
    counts = app.catalog.engine("c").store.reader().counts()
    assert counts.encoded == counts.passages > 0
    from hyblink.indexer.generations.build import build

    sources = app.catalog.engine("c").store.sources()
    assert list(sources) == [f"job:{job.id}"]
    record = new_record(app, app.catalog.spec("c"), parent="g000001")
    build(build_context(app), record, **encoders_of(app, record), keep=2)
    assert app.catalog.engine("c").record.id == "g000002"
    assert app.catalog.engine("c").store.sources() == sources
