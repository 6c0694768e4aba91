"""Dense encoders: sentence-transformers models by hub name, folder or package. Vectors are L2-normalised."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.core.manifest import read_json
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.graphs.parts import Floats
from hyblink.app.encoders.loading.models import identity, locate, root_of
from hyblink.app.encoders.loading.once import Once
from hyblink.app.encoders.loading.prefixes import joined, prefixes_for
from hyblink.app.encoders.runtimes.choice import default_precision
from hyblink.app.encoders.runtimes.open import open_transformer
from hyblink.app.encoders.runtimes.transformer import PRECISIONS, Precision, Transformer

_CHUNK = 128
"""The number of texts that are tokenised together, while those before them are computed."""


class DenseTransformer:
    """The `DenseEncoder` of a sentence-transformers model, loaded at the first use.

    Queries and passages can be encoded at the same time by several threads.
    """

    def __init__(self, settings: EncodeSettings, precision: Precision | None = None) -> None:
        """`precision` is by default the one of new collections."""
        self.settings = settings
        self._model_name = settings.dense_model
        self._precision = precision
        self.prefixes = prefixes_for(root_of(settings.dense_model))
        self._loaded = Once(
            lambda: open_transformer(self._model_name, self.settings, self.precision),
            f"the dense model {settings.dense_model!r}",
        )

    @cached_property
    def precision(self) -> Precision:
        """The precision of the vectors, which is part of the encoder's identity."""
        return self._precision or default_precision(self._model_name, self.settings)

    @cached_property
    def id(self) -> str:
        return dense_id(self._model_name, self.settings.max_seq_tokens, self.precision)

    @cached_property
    def dimension(self) -> int:
        """The number of dimensions. It is read from the configuration file if possible, without loading the model."""
        folder = Path(locate(self._model_name))
        if folder.is_dir():
            for config in sorted(folder.glob("*_Pooling/config.json")):
                pooling = read_json(config)
                if "word_embedding_dimension" in pooling and not list(folder.glob("*_Dense")):
                    return int(pooling["word_embedding_dimension"])
        return self.transformer.dimension

    @property
    def transformer(self) -> Transformer:
        """The loaded model."""
        return self._loaded()

    def load(self) -> None:
        """Load the model now. Raises EncoderUnavailableError if it cannot be loaded."""
        _ = self.transformer

    def word_vectors(self) -> Floats:
        """The transformer's word vectors, shape (V, H)."""
        return self.transformer.word_vectors()

    @property
    def window(self) -> int:
        """The number of tokens of a text that are read, special tokens included."""
        return min(self.settings.max_seq_tokens, self.transformer.longest)

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

    def _chunks(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray[Any, Any], list[list[int]]]]:
        """Chunks of (indexes of texts, their rows of token ids), the longest texts first.

        A thread tokenises the next chunk while the current one is computed.
        """
        order = np.argsort([-len(text) for text in texts], kind="stable")
        size = max(_CHUNK, self.settings.batch_size)
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        tokens, window = self.transformer.tokens, self.window - 2

        def tokenise(chunk: np.ndarray[Any, Any]) -> list[list[int]]:
            return [tokens.row(ids[:window]) for ids in tokens.ids([texts[at] for at in chunk])]

        if len(chunks) == 1:
            yield chunks[0], tokenise(chunks[0])
            return
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(tokenise, chunks[0])
            for number, chunk in enumerate(chunks):
                rows = waiting.result()
                if number + 1 < len(chunks):
                    waiting = ahead.submit(tokenise, chunks[number + 1])
                yield chunk, rows

    def _encode(self, texts: Sequence[str]) -> VectorArray:
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        if len(texts):
            for chunk, rows in self._chunks(texts):
                result[chunk] = self.transformer.vectors(rows)
        return result


def dense_id(model: str, tokens: int, precision: Precision) -> str:
    """The id of a dense encoder: its model, the tokens that it reads, and the precision unless it is fp32."""
    return f"dense:{identity(model)}:{tokens}{'' if precision == 'fp32' else f':{precision}'}"


def dense_model_of(encoder_id: str) -> str:
    """A dense encoder's id without its precision: encoders of one model differ in nothing else.

    >>> dense_model_of("dense:mine:0123:256:int8"), dense_model_of("dense:mine:0123:256")
    ('dense:mine:0123:256', 'dense:mine:0123:256')
    """
    head, _, last = encoder_id.rpartition(":")
    return head if last in PRECISIONS else encoder_id
