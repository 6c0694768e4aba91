"""Where a model's files are, for building its graph: base folder, adapters, tokenizer and pooling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import MANIFEST, check_manifest, read_json
from hyblink.app.encoders.graphs.architectures.architecture import unknown
from hyblink.app.encoders.graphs.architectures.known import ARCHITECTURES
from hyblink.app.encoders.graphs.weights import Source, architecture_of
from hyblink.app.encoders.loading.adapters import (
    CROSS_ENCODER_LORA,
    DENSE_LORA,
    LATE_INTERACTION,
    MENTION_LORA,
    SPAN_HEAD,
    adapter_manifest,
    trained,
)
from hyblink.app.encoders.loading.models import base_of, locate, plain_tokenizer
from hyblink.app.encoders.loading.tokens import TextTokens

_ADAPTED = frozenset({DENSE_LORA, MENTION_LORA, SPAN_HEAD, CROSS_ENCODER_LORA})


def hub_folder(model: str) -> Path:
    """The folder of a hub model's files, downloaded if they are not there. Raises EncoderUnavailableError."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise EncoderUnavailableError(
            f"the model {model!r} is not a folder, and no hub client is installed",
            expected="pip install huggingface_hub",
        ) from error
    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.model", "vocab.txt"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise EncoderUnavailableError(f"cannot load {model!r}: no such folder, and the hub says: {error}") from error


def source_of(model: str) -> Source:
    """The files of a model's graph: a base folder, and the adapters of a trained model on it.

    Raises EncoderUnavailableError if a folder is missing or damaged.
    """
    manifest = trained(model)
    kind = manifest.get("kind")
    folder = Path(model).expanduser()
    if kind in _ADAPTED:
        adapter_manifest(folder, str(kind))
        below = source_of(str(manifest["base"]))
        layers = int(manifest.get("layers", 0)) or below.layers
        return replace(below, adapters=(*below.adapters, folder), layers=layers)
    if kind == LATE_INTERACTION:
        adapter_manifest(folder, LATE_INTERACTION, "late interaction", "model.safetensors")
        return replace(source_of(str(manifest["base"])), layers=int(manifest.get("layers", 0)))
    if (folder / MANIFEST).is_file():
        check_manifest(folder)
    return Source(transformer_folder(base_folder(model)))


def base_folder(model: str) -> Path:
    """The folder of the model itself, or of an adapter's base, downloaded if it is a hub model.

    Raises EncoderUnavailableError if it is missing.
    """
    located = Path(locate(model))
    return located if located.is_dir() else hub_folder(base_of(model))


def modules_of(folder: Path) -> list[tuple[str, Path]]:
    """(class name, folder) of the modules of a sentence-transformers model; empty for a plain transformer."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    import orjson

    return [
        (str(item.get("type", "")).rsplit(".", 1)[-1], folder / str(item.get("path", "")))
        for item in orjson.loads(path.read_bytes())
    ]


def transformer_folder(folder: Path) -> Path:
    """The folder of the transformer itself in a model folder."""
    modules = modules_of(folder)
    return modules[0][1] if modules and modules[0][0] == "Transformer" else folder


def can_be_built(model: str) -> bool:
    """Whether a graph can probably be built of the model, by its configuration alone.

    Of a hub model, which may not be here yet, this is assumed. Raises EncoderUnavailableError if a folder is missing or
    damaged.
    """
    located = Path(locate(model))
    if not located.is_dir():
        return True
    folder = transformer_folder(located)
    return (folder / "config.json").is_file() and architecture_of(folder) in ARCHITECTURES


def tokens_in(model: str, folder: Path) -> TextTokens:
    """The tokenizer of a model whose transformer is in `folder`."""
    config = read_json(folder / "config.json")
    cased = folder / "sentence_bert_config.json"
    lower = bool(read_json(cased).get("do_lower_case", False)) if cased.is_file() else False
    return TextTokens(plain_tokenizer(model), int(config.get("pad_token_id") or 0), lower=lower)


def pooling_of(folder: Path) -> Literal["mean", "cls"]:
    """How a model makes a text's vector of token states: their mean, or the state of the first token.

    Raises UnknownGraphError for modules and poolings that need torch.
    """
    modules = modules_of(folder)
    others = [name for name, _ in modules if name not in {"Transformer", "Pooling", "Normalize"}]
    if others:
        raise unknown("modules behind the transformer", ", ".join(others))
    own = next((where for name, where in modules if name == "Pooling"), None)
    if own is None:
        return "mean"  # as sentence-transformers does with a plain transformer
    config: dict[str, Any] = read_json(own / "config.json")
    told = config.get("pooling_mode")
    modes = {str(told)} if told else {
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, on in config.items() if name.startswith("pooling_mode_") and on is True
    }  # fmt: skip
    if modes == {"mean"}:
        return "mean"
    if modes == {"cls"}:
        return "cls"
    raise unknown("a pooling", ", ".join(sorted(modes)) or "none")
