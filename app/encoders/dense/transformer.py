"""Dense encoders: sentence-transformers models by hub name, folder or package. Vectors are L2-normalised."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import read_json
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.loading.adapters import adapter_manifest, adapts_passages, merge_lora, trained
from hyblink.app.encoders.loading.models import identity, locate, quietly, root_of
from hyblink.app.encoders.loading.prefixes import joined, prefixes_for

_BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def cpu_has_bf16() -> bool:
    """Whether this CPU has bfloat16 instructions. Without them bfloat16 is slower than float32."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return bool(_BF16_CPU_FLAGS & set(flags.split()))


def device_of(settings: EncodeSettings) -> str:
    """The torch device for models: as set, or with `auto` a GPU if there is one."""
    if settings.device != "auto":
        return settings.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_sentence_transformer(name: str, device: str) -> Any:
    """A SentenceTransformer by hub name, folder or `package:NAME`. A dense LoRA adapter is merged into its base.

    Raises EncoderUnavailableError if it cannot be loaded.
    """
    manifest = trained(name)
    if adapts_passages(manifest):
        folder = Path(name).expanduser()
        adapter_manifest(folder, str(manifest["kind"]))
        model = load_sentence_transformer(str(manifest["base"]), device)
        merge_lora(model, folder)
        return model
    location = locate(name)
    if Path(location).is_dir():
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EncoderUnavailableError(
            "dense encoding needs torch and sentence-transformers",
            expected="hyblink[cpu] or hyblink[gpu]",
        ) from error
    try:
        with quietly():
            return SentenceTransformer(
                location,
                device=device,
                local_files_only=Path(location).is_dir(),
                model_kwargs={"use_safetensors": True},
            )
    except (OSError, ValueError) as error:
        raise EncoderUnavailableError(f"cannot load the dense model {name!r}: {error}") from error


def on_device(features: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """The batch with its tensors moved to a device. Other values stay unchanged."""
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}


def cut_layers(transformer: Any, kept: int) -> None:
    """Keep only the lowest `kept` transformer layers, in place; 0 keeps all.

    Raises EncoderUnavailableError if the model is not BERT-like or has fewer layers.
    """
    if not kept:
        return
    encoder = getattr(transformer.base_model, "encoder", None)
    if encoder is None or not 0 < kept <= len(getattr(encoder, "layer", ())):
        raise EncoderUnavailableError(
            "layers cannot be cut off", received=kept, expected="a BERT-like model of at least as many layers"
        )
    encoder.layer = encoder.layer[:kept]
    transformer.config.num_hidden_layers = kept


class DenseTransformer:
    """The `DenseEncoder` of a sentence-transformers model, loaded at the first use.

    Queries and passages can be encoded at the same time by several threads.
    """

    def __init__(self, settings: EncodeSettings) -> None:
        self.settings = settings
        self._model_name = settings.dense_model
        self.prefixes = prefixes_for(root_of(settings.dense_model))
        self._tokenizing = threading.Lock()
        self._loading = threading.RLock()

    @cached_property
    def id(self) -> str:
        return f"dense:{identity(self._model_name)}:{self.settings.max_seq_tokens}"

    @cached_property
    def dimension(self) -> int:
        """The number of dimensions. It is read from the configuration file if possible, without loading the model."""
        folder = Path(locate(self._model_name))
        if folder.is_dir():
            for config in sorted(folder.glob("*_Pooling/config.json")):
                pooling = read_json(config)
                if "word_embedding_dimension" in pooling and not list(folder.glob("*_Dense")):
                    return int(pooling["word_embedding_dimension"])
        found = self.model.get_embedding_dimension()
        return int(found)

    @cached_property
    def device(self) -> str:
        return device_of(self.settings)

    @cached_property
    def precision(self) -> str:
        """The precision as set. `auto` takes `bf16` on GPUs and on CPUs with bf16, else `fp32`."""
        if self.settings.precision != "auto":
            return self.settings.precision
        return "bf16" if self.device.startswith("cuda") or cpu_has_bf16() else "fp32"

    @cached_property
    def model(self) -> Any:
        with self._loading:
            return self.__dict__.get("model") or self._load()

    def input_embeddings(self) -> Any:
        """The transformer's word embeddings, a torch Embedding."""
        return self.model[0].model.get_input_embeddings()

    def _load(self) -> Any:
        model = load_sentence_transformer(self._model_name, self.device)
        model.max_seq_length = self.settings.max_seq_tokens
        if self.precision == "bf16":
            model.bfloat16()
        model.eval()
        return model

    def encode_query(self, text: str) -> VectorArray:
        vector: VectorArray = self._encode([self.prefixes.query + text])[0]
        return vector

    def encode_queries(self, texts: Sequence[str]) -> VectorArray:
        """The vectors of many queries in batches, shape (n, dimension)."""
        return self._encode([self.prefixes.query + text for text in texts])

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        return self._encode(self.joined(titles, texts))

    def joined(self, titles: Sequence[str], texts: Sequence[str]) -> list[str]:
        """The passages' input texts: prefix, title and text."""
        return [self.prefixes.passage + joined(title, text) for title, text in zip(titles, texts, strict=True)]

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray[Any, Any], Any]]:
        """Batches of (indexes of texts, features), the longest texts first.

        A thread tokenises the next batch while the current one is computed.
        """
        order = np.argsort([-len(text) for text in texts], kind="stable")
        size = self.settings.batch_size
        chunks = [order[at : at + size] for at in range(0, len(order), size)]

        def tokenise(chunk: np.ndarray[Any, Any]) -> Any:
            with self._tokenizing:  # a fast tokenizer must not be used by two threads at once
                return self.model.preprocess([texts[at] for at in chunk])

        if len(chunks) == 1:
            yield chunks[0], tokenise(chunks[0])
            return
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(tokenise, chunks[0])
            for number, chunk in enumerate(chunks):
                features = waiting.result()
                if number + 1 < len(chunks):
                    waiting = ahead.submit(tokenise, chunks[number + 1])
                yield chunk, features

    def _encode(self, texts: Sequence[str]) -> VectorArray:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        import torch

        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for chunk, features in self._batches(texts):
                vectors = self.model(on_device(features, self.device))["sentence_embedding"].float()
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
                result[chunk] = vectors.cpu().numpy()
        return result
