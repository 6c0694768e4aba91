"""The command line, as people call it: in processes of its own."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import processes

_numbers = itertools.count()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["embedded", pytest.param("opensearch", marks=pytest.mark.services)])
def hyblink(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYBLINK_")}
    environment |= {"PYTHONPATH": str(ROOT), "HYBLINK_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "120"}
    if request.param == "opensearch":
        state = request.getfixturevalue("local_cluster")().state()
        environment |= {
            "HYBLINK_ENGINE": "opensearch",
            "HYBLINK_OPENSEARCH__HOSTS": json.dumps([state.url]),
            "HYBLINK_OPENSEARCH__PREFIX": f"cli{next(_numbers)}",
        }

    def run(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "hyblink.app.cli.main", *arguments]
        done = processes.run(command, env=environment, cwd=tmp_path)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if status == 0 else done.stdout + done.stderr

    return run


def test_a_life_of_a_collection(hyblink, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    words = ["apple", "banana", "cherry", "damson", "elder", "fig", "grape", "hazel", "ivy", "juniper"]
    (beir / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": f"d{n}", "title": w, "text": f"all about {w} and {words[n - 1]}"}) + "\n"
            for n, w in enumerate(words)
        )
    )
    (beir / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": w}) + "\n" for n, w in enumerate(words))
    )
    (beir / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(10))
    )
    report = json.loads(hyblink("ingest", str(beir), "--no-dense", "--json"))
    assert (report["created"], report["passages"], report["rejected"]) == (10, 10, 0)
    found = json.loads(hyblink("search", "banana", "--json", "-k", "2", "--explain"))
    assert found["hits"][0]["doc_id"] == "d1"
    assert found["missing"] == ["dense"]
    shown = hyblink("search", "banana", "--explain")
    assert "1. banana" in shown
    assert "bm25" in shown
    assert "it stands at rank" in hyblink("search", "banana", "--why-not", "d2", "-k", "1")
    assert json.loads(hyblink("get", "d3"))["title"] == "damson"
    table = json.loads(
        hyblink(
            "evaluate",
            str(beir),
            "--systems",
            "bm25,vdr,hybrid",
            "--json",
            "--per-query",
            "pq.tsv",
            "--write-runs",
            "runs",
            "--plot",
            "p.png",
        )
    )
    assert table["systems"]["bm25"]["nDCG@10"] == pytest.approx(1.0)
    assert table["systems"]["hybrid"]["Success@1"] == pytest.approx(1.0)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "pq.tsv").read_text().count("\n") == 1 + 3 * 10 * 6
    again = json.loads(hyblink("evaluate", str(beir), "--systems", "", "--run", "runs/bm25.run", "--json"))
    assert again["systems"]["bm25"]["nDCG@10"] == pytest.approx(1.0)
    tuned = json.loads(hyblink("tune", str(beir), "--split", "test", "--json"))
    assert tuned["saved"] is True
    assert tuned["profile"]["version"] == 1
    assert "1  " in hyblink("profiles", "list")
    saved = json.loads(
        hyblink("profiles", "save", "--weights", '{"bm25": 0.9, "vdr": 0.1}', "--fusion", "rrf", "--json")
    )
    assert (saved["version"], saved["fusion"], saved["origin"]) == (2, "rrf", "set by hand")
    assert {name: saved["weights"][name] for name in ("bm25", "vdr", "dense")} == {"bm25": 0.9, "vdr": 0.1, "dense": 0}
    assert "* 2  rrf" in hyblink("profiles", "list")
    assert "no weight is above 0" in hyblink("profiles", "save", "--weights", '{"dense": 0}', status=2)
    assert "profile 1 is used now" in hyblink("profiles", "use", "1")
    assert "g000002 answers now" in hyblink("generations", "rebuild")
    assert "g000001 answers now" in hyblink("generations", "rollback")
    assert "* g000001" in hyblink("generations", "list")
    assert "10 documents exported" in hyblink("export", "out")
    assert "10 documents imported into copy" in hyblink("import", "out", "-c", "copy")
    assert "d1: deleted" in hyblink("delete", "d1")
    assert "d1: not_found" in hyblink("delete", "d1", status=2)
    assert hyblink("fsck").count("clean") == 2
    key = hyblink("keys", "create", "--role", "search", "--note", "test").strip()
    assert key.startswith("hyb_")
    assert key.split("_", 2)[2] not in hyblink("keys", "list")
    names = {row["name"]: row["documents"] for row in json.loads(hyblink("collections", "--json"))}
    assert names == {"default": 9, "copy": 10}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "x"], "no such collection; received 'default'"),
        (["search", "x", "-c", "Bad Name"], "bad collection name; received 'Bad Name'"),
        (["ingest"], "nothing to ingest"),
        (["ingest", "nowhere.jsonl"], "no such file or folder"),
        (["ingest", "--python-package", "no_such_package"], "no such installed package"),
        (["evaluate", "nowhere"], "no such file"),
        (["export", "out"], "no such collection"),
        (["import", "nowhere"], "not an exported folder"),
        (["keys", "create", "--role", "root"], "unknown role; received 'root'"),
        (["keys", "revoke", "nothing"], "no such key"),
        (["serve", "--host", "0.0.0.0"], "without API keys"),
    ],
)  # fmt: skip
def test_errors_name_what_was_received_and_expected(hyblink, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    shown = hyblink(*arguments, status=2)
    assert message in shown
    assert "Traceback" not in shown


def test_bad_search_options(hyblink, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "x"}\n')
    hyblink("ingest", "a.jsonl", "--no-dense")
    for options, message in [
        (["x", "-k", "0"], "k is out of range; received 0"),
        (["x", "-k", "1000000000"], "k is out of range"),
        ([""], "the query is empty"),
        (["a" * 100_000], "the query is too long"),
        (["x", "--legs", "magic"], "unknown signal; received 'magic'; expected one of bm25, vdr, dense"),
        (["x", "--filter", "{bad"], "--filter is not JSON"),
        (["x", "--filter", '{"like": 1}'], "unknown filter"),
        (["x", "--weights", '{"bm25": NaN}'], "out of range"),
        (["x", "--weights", '{"bm25": "a"}'], "bad weights"),
        (["x", "--fusion", "magic"], "unknown fusion"),
        (["x", "--normalization", "magic"], "unknown normalization"),
        (["x", "--why-not", "zzz"], "no such document"),
    ]:
        shown = hyblink("search", *options, status=2)
        assert message in shown, (options, shown)
        assert "Traceback" not in shown


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['hyblink', '--help']\ntry:\n  import hyblink.app.cli.main as m; m.main()\nexcept SystemExit: pass\n"
        + (
            "heavy = {'torch', 'numpy', 'faiss', 'fastapi', 'numba', 'tantivy', 'pydantic'} & set(sys.modules)\nassert not heavy, heavy"
        )
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True)


def test_documents_from_a_pipe(hyblink, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = tmp_path / "rows"
    rows.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(rows.read_bytes()), daemon=True).start()
    done = json.loads(hyblink("ingest", str(pipe), "--no-dense", "-c", "piped", "--json"))
    assert (done["created"], done["files_read"]) == (2, 1)
    listed = json.loads(hyblink("documents", "-c", "piped", "--json"))["documents"]
    assert [(one["id"], one["text"]) for one in listed] == [("a", "one"), ("b", "two")]
    hyblink("drop", "piped", "--yes")


def test_documents_of_all_kinds_are_listed_previewed_and_deleted(hyblink, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "parts.csv").write_text("SKU;Name;Details;Price\nA1;Drill;18 V drill;12,50\nA2;Saw;for green wood;9,00\n")
    (folder / "note.md").write_text("---\ntitle: A note\ntags: [x]\n---\nText.\n")
    (folder / "old.txt").write_bytes("Größe und Maß".encode("cp1252"))
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    shown = json.loads(hyblink("ingest", str(folder), "--preview", "--json"))
    assert [one["id"] for one in shown["documents"]] == ["note.md", "old.txt", "A1", "A2"]
    assert shown["left_out"] == ["skipped photo.png: a picture; --ocr reads the text in it"]
    assert any("id = SKU, title = Name, text = Details" in note for note in shown["notes"])
    assert json.loads(hyblink("collections", "--json")) == [], "a preview stores nothing"
    done = json.loads(hyblink("ingest", str(folder / "note.md"), str(folder), "--no-dense", "--json"))
    assert (done["files_read"], done["files_skipped"], done["created"], done["unchanged"]) == (4, 1, 4, 1)
    assert any("cp1252" in note for note in done["notes"])
    hyblink("ingest", str(folder / "photo.png"), "--no-dense", status=1)
    listed = json.loads(hyblink("documents", "--filter", '{"range": {"Price": {"gt": 10}}}', "--json"))
    assert [one["id"] for one in listed["documents"]] == ["A1"]
    assert listed["total"] == 1
    page = json.loads(hyblink("documents", "--limit", "2", "--after", "A1", "--json"))
    assert ([one["id"] for one in page["documents"]], page["total"]) == (["A2", "note.md"], 4)
    assert json.loads(hyblink("documents", "--after", "zzz", "--json")) == {"documents": [], "total": 4}
    told = json.loads(hyblink("delete", "--filter", '{"term": {"format": "text"}}', "--dry-run", "--json"))
    assert told == {"would_delete": ["old.txt"]}
    assert json.loads(hyblink("delete", "--filter", '{"term": {"format": "text"}}', "--json")) == {"deleted": 1}
    assert json.loads(hyblink("documents", "--json"))["total"] == 3
    hyblink("delete", status=2)
    hyblink("drop", "default", "--yes")
    assert json.loads(hyblink("collections", "--json")) == []
