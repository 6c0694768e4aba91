"""Mention encoders: the query tower of a bi-encoder for entity linking (Wu et al. 2020), an adapter of the dense model.

The entity tower is the collection's own dense encoder, which stays frozen. So entities need no second vector, adapters
can be exchanged without encoding the knowledge base again, and training uses the entities' final vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.core.ports.encoders import DenseEncoder
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.linking import MentionContext
from hyblink.app.encoders.dense.transformer import device_of, load_sentence_transformer, on_device
from hyblink.app.encoders.loading.adapters import (
    DENSE_LORA,
    MENTION_LORA,
    WEIGHTS,
    adapter_manifest,
    merge_lora,
    trained,
)
from hyblink.app.encoders.loading.models import identity, is_dense, plain_tokenizer, root_of
from hyblink.app.encoders.loading.prefixes import prefixes_for
from hyblink.app.encoders.mention.text import marked

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
        self._lock = threading.Lock()
        self.base = str(self._manifest["base"])
        self.tokens = int(self._manifest["config"]["query_tokens"])
        self.id = f"mention:{identity(str(folder))}"

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors are in the space of the dense encoder with this id."""
        return is_dense(dense_id, self._entities)

    @cached_property
    def model(self) -> Any:
        """The SentenceTransformer with the adapter merged."""
        model = load_sentence_transformer(self.base, device_of(self._settings))
        merge_lora(model, self._folder)
        model.max_seq_length = self.tokens
        return model.eval()

    @cached_property
    def _tokenizer(self) -> Any:
        return plain_tokenizer(root_of(self.base))

    def texts(self, mentions: Sequence[MentionContext]) -> list[str]:
        """The mentions' input texts: prefix, context and marked mention."""
        prefix = prefixes_for(root_of(self.base)).query
        return [prefix + text for text in marked(self._tokenizer, mentions, self.tokens)]

    def encode(self, mentions: Sequence[MentionContext]) -> VectorArray:
        import torch

        with self._lock:
            texts = self.texts(mentions)
            found = np.empty((len(texts), int(self.model.get_embedding_dimension())), dtype=np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        for at in range(0, len(order), self._settings.batch_size):
            some = order[at : at + self._settings.batch_size]
            with self._lock, torch.inference_mode():  # other threads can compute between batches
                features = on_device(self.model.preprocess([texts[n] for n in some]), self.model.device)
                vectors = self.model(features)["sentence_embedding"].float()
                found[some] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        return found
