"""What every keeper of records promises: versions, order, states, collections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError
from hyblink.app.core.ports.jobs import Record, Records
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.jobs.claims import KIND, Claims
from hyblink.app.operations.collections import ensure_collection


@pytest.fixture
def records(make_app: Callable[..., App]) -> Records:
    return make_app().catalog.records()


def test_a_record_is_written_over_the_version_that_was_seen_only(records: Records) -> None:
    assert records.get("job", "a") is None
    first = records.put(Record("job", "a", {"n": 1, "text": "ü/…"}, "queued", "c"))
    assert first.version == 1
    assert records.get("job", "a") == first
    with pytest.raises(ConflictError, match="somebody else"):
        records.put(Record("job", "a", {"n": 2}))
    second = records.put(Record("job", "a", {"n": 2}, "running", "c", first.version))
    with pytest.raises(ConflictError, match="somebody else"):
        records.put(Record("job", "a", {"n": 3}, "failed", "c", first.version))
    assert records.get("job", "a") == second == Record("job", "a", {"n": 2}, "running", "c", 2)
    assert records.remove("job", ["a", "b"]) == 1
    with pytest.raises(ConflictError):
        records.put(Record("job", "a", {}, version=2))
    assert records.get("job", "a") is None


def test_lists_go_back_from_the_last_id(records: Records) -> None:
    records.add([Record("job", f"{n:03}", {"n": n}, "done" if n % 2 else "failed", f"c{n % 3}") for n in range(50)])
    records.add([Record("other", "x", {})])
    assert [one.id for one in records.list("job", limit=3)] == ["049", "048", "047"]
    assert [one.id for one in records.list("job", before="047", limit=2)] == ["046", "045"]
    some = records.list("job", states=["done"], collection="c0")
    assert [one.body["n"] for one in some] == [n for n in range(49, -1, -1) if n % 2 and n % 3 == 0]
    assert records.count("job") == 50
    assert records.count("job", states=["done", "nothing"]) == 25
    assert records.count("job", collection="c1") == 17
    assert records.count("none") == 0
    records.add([Record("job", "049", {"n": -1}, "queued")])
    changed = records.get("job", "049")
    assert changed is not None
    assert (changed.version, changed.body, changed.state) == (2, {"n": -1}, "queued")
    assert records.remove("job", [f"{n:03}" for n in range(60)]) == 50


def test_of_many_who_count_at_once_none_is_lost(make_app: Callable[..., App]) -> None:
    """Two applications, four threads: each adds ten by reading, adding and writing."""
    both = [make_app().catalog.records() for _ in range(2)]
    both[0].put(Record("counter", "n", {"value": 0}))
    failures: list[BaseException] = []

    def add(mine: Records) -> None:
        try:
            done = 0
            while done < 10:
                seen = mine.get("counter", "n")
                assert seen is not None
                try:
                    mine.put(Record("counter", "n", {"value": seen.body["value"] + 1}, version=seen.version))
                    done += 1
                except ConflictError:
                    continue
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=[both[at % 2]]) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    final = both[0].get("counter", "n")
    assert final is not None
    assert final.body["value"] == 40
    assert final.version == 41


def test_time_is_that_of_the_store(
    make_app: Callable[..., App], engine_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is an hour ahead writes heartbeats and leases that others understand."""
    if engine_kind == "embedded":
        pytest.skip("all processes are on one machine, with one clock")
    right = time.time()
    monkeypatch.setattr("hyblink.app.engines.opensearch.client.time.time", lambda: right + 3600)
    app = make_app()
    assert abs(app.catalog.records().time() - right) < 30
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": "a", "text": "x"}], encode=False)
    claims = Claims(app.catalog.records(), lease_s=20)
    with claims.some(app.catalog.engine("c"), 10):
        found = app.catalog.records().get(KIND, "c/g000001")
        assert found is not None
        assert abs(found.body["claims"][0]["until"] - right - 20) < 30
