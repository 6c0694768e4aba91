"""Mention encoders: the query tower of a bi-encoder for entity linking (Wu et al. 2020), an adapter of the dense model.

The entity tower is the collection's own dense encoder, which stays frozen. So entities need no second vector, adapters
can be exchanged without encoding the knowledge base again, and training uses the entities' final vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.core.ports.encoders import DenseEncoder
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.linking import MentionContext
from hyblink.app.encoders.loading.adapters import (
    DENSE_LORA,
    MENTION_LORA,
    WEIGHTS,
    adapter_manifest,
    trained,
)
from hyblink.app.encoders.loading.models import identity, is_dense, plain_tokenizer, root_of
from hyblink.app.encoders.loading.once import Once
from hyblink.app.encoders.loading.prefixes import prefixes_for
from hyblink.app.encoders.mention.text import marked
from hyblink.app.encoders.runtimes.choice import default_precision
from hyblink.app.encoders.runtimes.open import open_transformer
from hyblink.app.encoders.runtimes.transformer import Transformer

DEFAULT = WEIGHTS / "mention-minilm"
_SIDE = 200


class PlainMention:
    """A `MentionEncoder` without training: the dense encoder applied to the mention, followed by its context."""

    def __init__(self, dense: DenseEncoder) -> None:
        self._dense = dense
        self.id = f"mention:plain:{dense.id}"
        self.base = dense.id

    def fits(self, dense_id: str) -> bool:
        """Whether `dense_id` is the id of the wrapped dense encoder."""
        return dense_id == self._dense.id

    def encode(self, mentions: Sequence[MentionContext]) -> VectorArray:
        texts = [
            f"{mention.mention}. {mention.left[-_SIDE:]}{mention.mention}{mention.right[:_SIDE]}"
            for mention in mentions
        ]
        return self._dense.encode_queries(texts)


class MentionTower:
    """The `MentionEncoder` of a LoRA adapter trained by `hyblink train blink_bi`. It is loaded at the first use.

    Safe to share between threads.
    """

    def __init__(self, folder: Path, settings: EncodeSettings) -> None:
        self._folder = folder
        self._settings = settings
        shared = trained(str(folder)).get("kind") == DENSE_LORA  # one adapter serves as mention and entity tower
        self._manifest = adapter_manifest(folder, DENSE_LORA if shared else MENTION_LORA)
        self._entities = str(folder) if shared else str(self._manifest["base"])
        self._loaded = Once(self._opened, f"the mention encoder {folder.name!r}")
        self.base = str(self._manifest["base"])
        self.tokens = int(self._manifest["config"]["query_tokens"])
        self.id = f"mention:{identity(str(folder))}"

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors are in the space of the dense encoder with this id."""
        return is_dense(dense_id, self._entities)

    def _opened(self) -> Transformer:
        """The loaded model with the adapter merged."""
        folder = str(self._folder)
        return open_transformer(folder, self._settings, default_precision(folder, self._settings))

    @cached_property
    def _tokenizer(self) -> Any:
        return plain_tokenizer(self.base)

    def texts(self, mentions: Sequence[MentionContext]) -> list[str]:
        """The mentions' input texts: prefix, context and marked mention."""
        prefix = prefixes_for(root_of(self.base)).query
        return [prefix + text for text in marked(self._tokenizer, mentions, self.tokens)]

    def encode(self, mentions: Sequence[MentionContext]) -> VectorArray:
        made = self._loaded()
        tokens, window = made.tokens, min(self.tokens, made.longest) - 2
        if not mentions:
            return np.empty((0, made.dimension), dtype=np.float32)
        texts = self.texts(mentions)
        different = {text: at for at, text in enumerate(dict.fromkeys(texts))}  # equal ones are read once
        vectors = made.vectors([tokens.row(ids[:window]) for ids in tokens.ids(list(different))])
        return vectors[[different[text] for text in texts]]
