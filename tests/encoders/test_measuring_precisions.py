"""`hyblink models measure`: a table for each runtime and precision, and the precision that it chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.training import THINGS, VERBS, tiny_model
from typer.testing import CliRunner

from hyblink.app.cli.main import cli
from hyblink.app.encoders.loading.measured import measured_precision
from hyblink.app.operations.precision import FORMS, chosen


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    texts = [f"the {thing} {verb} ." for thing in THINGS for verb in VERBS]
    documents = [{"_id": f"d{at}", "title": "", "text": text} for at, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    queries = [{"_id": f"q{at}", "text": f"what {text}"} for at, text in enumerate(texts)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels").mkdir()
    rows = "\n".join(f"q{at}\td{at}\t1" for at in range(len(texts)))
    (folder / "qrels" / "dev.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}\n")
    return folder


def test_a_model_is_measured_in_every_form(beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = tiny_model(tmp_path / "model"), tmp_path / "table.json"
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(tmp_path / "data"))
    arguments = ["models", "measure", str(model), "--data", str(beir), "--queries", "20", "--json"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    table: dict[str, Any] = json.loads(out.read_text())
    assert json.loads(done.stdout) == table
    forms = [(row["runtime"], row["precision"]) for row in table["rows"]]
    assert forms == [form for form in FORMS if form in forms]
    assert {("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8"), ("onnx", "int8_all")} <= set(forms)
    name = f"{beir.name} dense"
    for row in table["rows"]:
        assert all(row[key] > 0 for key in ("load_s", "query_ms", "eight_ms", "per_s"))
        if row["runtime"] == "onnx":
            assert 0 < row["figures"][name] <= 1
            assert row["precision"] == "fp32" or 0 <= row["p"][name] <= 1
    assert table["precision"] == chosen(table["rows"])
    (model / "manifest.json").write_text(json.dumps({"kind": "dense", "files": {}}))
    kept = CliRunner().invoke(cli, arguments)
    assert kept.exit_code == 0, kept.output
    assert json.loads((model / "manifest.json").read_text())["measured"]["precision"] == measured_precision(str(model))
    nothing = CliRunner().invoke(cli, ["models", "measure", str(model), "--data", str(tmp_path)])
    assert nothing.exit_code == 2
    assert "no set that measures this model" in nothing.output
