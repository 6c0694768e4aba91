"""Model folders that were made to do harm: each is refused by name, nothing in it runs, and what answers stays."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi.testclient import TestClient
from support.training import tiny_model

from hyblink.app.api.application import create_api
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import HyblinkError
from hyblink.app.core.manifest import sha256, write_manifest
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.reranker import DEFAULT as LATE
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.encoders.vdr.adapter import DEFAULT, VdrAdapter
from hyblink.app.encoders.vdr.head import load_encoder
from hyblink.app.operations.collections import ensure_collection, fsck
from hyblink.app.operations.encoding import encode_now
from hyblink.training.registry import ModelRegistry


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (self.mark,))  # type: ignore[return-value]


def pickled(mark: Path) -> bytes:
    out = io.BytesIO()
    pickle.dump(Bomb(mark), out)
    return out.getvalue()


def test_the_bomb_works(tmp_path: Path) -> None:
    pickle.loads(pickled(tmp_path / "mark"))
    assert (tmp_path / "mark").exists()


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A good VDR head, to be spoilt."""
    folder = tmp_path / "models" / "head"
    shutil.copytree(DEFAULT, folder)
    return folder


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def again(folder: Path) -> None:
    """Checksums as they have to be: who can write the folder can write them."""

    def sums(manifest: dict[str, Any]) -> None:
        for name in manifest["files"]:
            path = folder / name
            manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}

    change_manifest(folder, sums)


def config(folder: Path, **changes: Any) -> None:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, **changes}))
    again(folder)


def spoil_pickle(folder: Path, mark: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickled(mark))


def spoil_pickle_instead(folder: Path, mark: Path) -> None:
    spoil_pickle(folder, mark)
    (folder / "model.safetensors").unlink()
    change_manifest(folder, lambda m: m["files"].pop("model.safetensors"))


def spoil_disguised(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickled(mark))
    again(folder)


def spoil_header(folder: Path, mark: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[:8] = (2**60).to_bytes(8, "little")
    (folder / "model.safetensors").write_bytes(content)
    again(folder)


def spoil_short(folder: Path, mark: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again(folder)


def spoil_checksum(folder: Path, mark: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def spoil_link(folder: Path, mark: Path) -> None:
    secret = mark.with_name("secret.safetensors")
    shutil.move(folder / "model.safetensors", secret)
    (folder / "model.safetensors").symlink_to(secret)


def spoil_inner_link(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "model.safetensors").symlink_to("other.safetensors")


def spoil_folder_link(folder: Path, mark: Path) -> None:
    (folder / "more").symlink_to(mark.parent)


def spoil_path(folder: Path, mark: Path) -> None:
    (mark.parent / "x.safetensors").write_bytes(b"x")
    outside = {"bytes": 1, "sha256": sha256(mark.parent / "x.safetensors")}
    change_manifest(folder, lambda m: m["files"].update({"../../x.safetensors": outside}))


def spoil_entries(folder: Path, mark: Path) -> None:
    change_manifest(folder, lambda m: m["files"].update({"model.safetensors": "trust me"}))


def spoil_fields(folder: Path, mark: Path) -> None:
    change_manifest(folder, lambda m: m.update({"base": ["a"], "name": None}))


def spoil_manifest(folder: Path, mark: Path) -> None:
    (folder / "manifest.json").write_text("[" * 100_000)


def spoil_kind(folder: Path, mark: Path) -> None:
    change_manifest(folder, lambda m: m.update({"kind": "cross-encoder-lora"}))


def spoil_huge(folder: Path, mark: Path) -> None:
    config(folder, vocabulary=10**12)


def spoil_large(folder: Path, mark: Path) -> None:
    config(folder, layers=64, intermediate=65_536)


def spoil_zero(folder: Path, mark: Path) -> None:
    change_manifest(folder, lambda m: m["files"].update({"a\u0000b.safetensors": {"bytes": 1, "sha256": "x"}}))


def spoil_long(folder: Path, mark: Path) -> None:
    change_manifest(folder, lambda m: m["files"].update({"a" * 300: {"bytes": 1, "sha256": "x"}}))


def spoil_type(folder: Path, mark: Path) -> None:
    config(folder, hidden="384; rm -rf /")


def spoil_unknown(folder: Path, mark: Path) -> None:
    config(folder, __class__="os.system", run="true")


def spoil_auto_map(folder: Path, mark: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    config(folder, auto_map={"AutoModel": "evil.Model"})


def spoil_code_name(folder: Path, mark: Path) -> None:
    config(folder, auto_map={"AutoModel": "someone/model--evil.Model"})


SPOILT = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda one: one.__name__.removeprefix("spoil_"))
def test_a_spoilt_head_is_refused(
    spoil: Callable[[Path, Path], None], head: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "elsewhere" / "mark"
    mark.parent.mkdir()
    spoil(head, mark)

    def load() -> None:
        adapter = VdrAdapter(head, passage_weights=256)
        assert adapter.id
        words = np.zeros((30522, 384), dtype=np.float32)
        adapter.over(cast("Any", SimpleNamespace(word_vectors=lambda: words)))

    with pytest.raises(HyblinkError) as refused:
        load()
    assert "head" in str(refused.value)
    assert not mark.exists()
    assert "rm -rf" not in caplog.text


def spoil_layers(folder: Path, mark: Path) -> None:
    change_manifest(folder, lambda m: m.update({"layers": -1}))


def spoil_many_layers(folder: Path, mark: Path) -> None:
    change_manifest(folder, lambda m: m.update({"layers": "all; rm -rf /"}))


_OF_A_CONFIG = {spoil_huge, spoil_large, spoil_type, spoil_unknown, spoil_auto_map, spoil_code_name}


@pytest.mark.parametrize(
    "spoil",
    [one for one in (*SPOILT, spoil_layers, spoil_many_layers) if one not in _OF_A_CONFIG],
    ids=lambda one: one.__name__.removeprefix("spoil_"),
)
def test_a_spoilt_late_interaction_is_refused(spoil: Callable[[Path, Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "late"
    shutil.copytree(LATE, folder)
    mark = tmp_path / "elsewhere" / "mark"
    mark.parent.mkdir()
    spoil(folder, mark)
    encoder = Reranker(str(folder), EncodeSettings(cross_encoder_precision="fp32"))
    with pytest.raises(HyblinkError, match="late|layers cannot be cut off"):
        encoder.load()
    assert not mark.exists()


def test_a_spoilt_model_of_a_generation_takes_no_other_signal_down(tmp_path: Path) -> None:
    """What the registry holds is spoilt after it has answered: BM25 answers on, and /readyz would tell."""
    app = build(Settings(data_dir=tmp_path))
    shutil.copytree(DEFAULT, app.settings.models_dir / "vdr-minilm")
    again(app.settings.models_dir / "vdr-minilm")
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": "a", "text": "The heron stands in the shallow water."}], encode=False)
    encode_now(app, "c")
    record = app.catalog.engine("c").record
    trained = app.encoders.trained_vdr("vdr-minilm", record.dense_encoder)
    assert trained == record.vdr_model, "the same weights under the same name are the same encoder"
    app.close()
    other = build(Settings(data_dir=tmp_path, encode=EncodeSettings(vdr_model="none")))
    assert other.search.search("c", SearchRequest("heron", k=1)).missing == (), "found in the registry"
    other.close()
    spoil_checksum(app.settings.models_dir / "vdr-minilm", tmp_path)
    third = build(Settings(data_dir=tmp_path, encode=EncodeSettings(vdr_model="none")))
    found = third.search.search("c", SearchRequest("heron", k=1))
    assert found.hits[0].doc_id == "a"
    assert found.missing == (Signal.DENSE,)
    assert "does not match its sha256" in fsck(third, "c")[0]
    said = {leg.signal: leg.error for leg in found.legs}
    assert "does not match its sha256" in said[Signal.DENSE]
    assert said[Signal.VDR] == "", "bags of tokens stand in"
    with TestClient(create_api(third), base_url="http://127.0.0.1") as client:
        deadline = time.monotonic() + 60
        while not (ready := client.get("/readyz").json())["ready"]:
            assert time.monotonic() < deadline, ready
            time.sleep(0.1)
        assert ready["degraded"] == ["c: encoder_unavailable"]
    third.close()


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A whole small model, to be spoilt."""
    return tiny_model(tmp_path / "model")


def whole_pickle(folder: Path, mark: Path) -> None:
    weights = next(folder.rglob("model.safetensors"))
    weights.with_name("pytorch_model.bin").write_bytes(pickled(mark))
    weights.unlink()


def whole_module(folder: Path, mark: Path) -> None:
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    modules[0]["type"] = "antigravity.Model"
    path.write_text(json.dumps(modules))


def whole_path(folder: Path, mark: Path) -> None:
    shutil.copytree(folder, mark.parent / "copy")
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    modules[0]["path"] = "../elsewhere/copy"
    path.write_text(json.dumps(modules))


def whole_code(folder: Path, mark: Path) -> None:
    (folder / "modeling.py").write_text(f"open({str(mark)!r}, 'w')")


def whole_auto_map(folder: Path, mark: Path) -> None:
    path = next(folder.rglob("config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "a--b.C"}}))


def whole_link(folder: Path, mark: Path) -> None:
    weights = next(folder.rglob("model.safetensors"))
    shutil.move(weights, mark.with_suffix(".safetensors"))
    weights.symlink_to(mark.with_suffix(".safetensors"))


WHOLE = [whole_pickle, whole_module, whole_path, whole_code, whole_auto_map, whole_link]


@pytest.mark.parametrize("spoil", WHOLE, ids=lambda one: one.__name__.removeprefix("whole_"))
def test_a_spoilt_model_is_refused_whoever_loads_it(
    spoil: Callable[[Path, Path], None], whole: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "elsewhere" / "mark"
    mark.parent.mkdir()
    settings = EncodeSettings(dense_model=str(whole))
    assert DenseTransformer(settings).encode_query("apple").shape == (32,), "it was a good one"
    spoil(whole, mark)
    with pytest.raises(HyblinkError, match="model"):
        DenseTransformer(settings).encode_query("apple")
    with pytest.raises(HyblinkError, match="model"):
        Reranker(str(whole), settings).load()
    with pytest.raises(HyblinkError, match="model"):
        load_encoder(whole)
    assert not mark.exists()


def test_the_registry_names_what_it_would_not_load(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    write_manifest(folder, ["pytorch_model.bin"], kind="vdr", name="mine")
    with pytest.raises(HyblinkError, match="not loaded"):
        registry.show("mine")
    for bad in ("../mine", "/etc", "mine/..", ""):
        with pytest.raises(HyblinkError, match="bad model name"):
            registry.show(bad)
