"""Mining, training and the models' registry from the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from support import processes
from support.training import tiny_model, tiny_rows

ROOT = Path(__file__).resolve().parents[2]


def test_mine_train_and_promote(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    rows = tiny_rows(24)
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": row.positives[0].id, "title": "", "text": row.positives[0].text}) + "\n" for row in rows
        )
    )
    (beir / "queries.jsonl").write_text("".join(json.dumps({"_id": row.id, "text": row.query}) + "\n" for row in rows))
    (beir / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{row.id}\t{row.positives[0].id}\t1\n" for row in rows)
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYBLINK_")}
    environment |= {"PYTHONPATH": str(ROOT), "HYBLINK_DATA_DIR": str(tmp_path / "data"), "PYTHONWARNINGS": "ignore"}

    def hyblink(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "hyblink.app.cli.main", *arguments]
        done = processes.run(command, env=environment, cwd=tmp_path)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if status == 0 else done.stdout + done.stderr

    mined = json.loads(hyblink("mine", str(beir), "--source", "bm25", "--out", "rows.jsonl", "--scores", "--json"))
    assert mined["rows"] == 24
    assert mined["negatives"] > 24
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert first["neg"][0]["source"].startswith("bm25@")
    assert len(first["neg_scores"]) == len(first["neg"])
    assert "exists already" in hyblink("mine", str(beir), "--source", "bm25", "--out", "rows.jsonl", status=2)
    assert "needs a collection" in hyblink("mine", str(beir), "--source", "dense", "--out", "other.jsonl", status=2)

    out = tmp_path / "data" / "models" / "mine"
    options = ["--set", f"base={base}", "--set", "steps=3", "--set", "batch=4", "--set", "lora_rank=4"]
    made = json.loads(hyblink("train", "dense", "--data", "rows.jsonl", "--out", str(out), *options, "--json"))
    assert made["metrics"]["steps"] == 3
    assert "unknown option of the recipe dense" in hyblink(
        "train", "dense", "--data", "rows.jsonl", "--out", "x", "--set", "stepz=3", status=2
    )
    assert "unknown recipe" in hyblink("train", "magic", "--data", "rows.jsonl", "--out", "x", status=2)
    (listed,) = json.loads(hyblink("models", "list", "--json"))
    assert (listed["name"], listed["kind"], listed["promoted"]) == ("mine", "dense-lora", False)
    assert "mine is the promoted dense-lora" in hyblink("models", "promote", "mine")
    assert json.loads(hyblink("models", "show", "mine"))["data"] == made["data"]
    assert "no such model" in hyblink("models", "show", "gone", status=2)
