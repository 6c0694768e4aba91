"""The trainable mention tower of BLINK's bi-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hyblink.app.encoders.loading.adapters import MENTION_LORA
from hyblink.app.encoders.loading.in_torch import on_device
from hyblink.training.data.rows import Text
from hyblink.training.families.adapters import save_adapter
from hyblink.training.families.backbone import load_backbone
from hyblink.training.families.dense.trainable import DenseTrainable
from hyblink.training.families.in_batch import DEV_BATCH
from hyblink.training.families.mention.config import MentionConfig
from hyblink.training.linking.vectors import EntityVectors


class MentionTrainable(DenseTrainable[MentionConfig]):
    """The mention tower of a bi-encoder (Wu et al. 2020), trained against fixed entity vectors.

    The entity vectors are those of a knowledge base. If `vectors` is None, they are computed from the entity texts with
    the frozen base model.
    """

    artifact = MENTION_LORA

    def __init__(self, config: MentionConfig, vectors: EntityVectors | None) -> None:
        super().__init__(config)
        self._vectors = vectors
        self._frozen: Any = None if vectors is not None else load_backbone(config).eval().requires_grad_(False)
        self._made: dict[str, torch.Tensor] = {}
        if vectors is not None:
            vectors.check_encoder(config.base)

    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]:
        """The fixed vectors of entities, shape (P, D), looked up by id or computed once from their texts."""
        if self._vectors is not None:
            return (torch.from_numpy(self._vectors.get([text.id for text in texts])).to(self.model.device),)
        new = list({text.joined: text for text in texts if text.joined not in self._made}.values())
        for at in range(0, len(new), DEV_BATCH):
            part = [self._prefixes.passage + item.joined for item in new[at : at + DEV_BATCH]]
            self._frozen.max_seq_length = self.config.passage_tokens
            with torch.no_grad():
                features = on_device(self._frozen.preprocess(part), self._frozen.device)
                made = nn.functional.normalize(self._frozen(features)["sentence_embedding"].float(), dim=-1)
            self._made |= {item.joined: own for item, own in zip(new[at : at + DEV_BATCH], made, strict=True)}
        return (torch.stack([self._made[text.joined] for text in texts]),)

    def save(self, folder: Path) -> list[str]:
        return save_adapter(self.model[0].model, self.config.base, folder, half=True)
