"""The trainable late-interaction head on frozen token states, trained with listwise cross-entropy.

Shapes: L tokens of a text with [CLS] and [SEP], H hidden, A tokens of a query, M tokens of all its passages together,
N passages of a query, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hyblink.app.core.weights import idf
from hyblink.app.encoders.dense.backbone import Backbone, TextStates
from hyblink.app.encoders.late_interaction.head import InteractionHead, save_head
from hyblink.app.encoders.loading.in_torch import cut_layers
from hyblink.app.encoders.loading.models import identity
from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer
from hyblink.training.data.batches import Drawn
from hyblink.training.data.hidden_states import StateCache
from hyblink.training.data.rows import TrainingRow
from hyblink.training.families.backbone import load_backbone
from hyblink.training.families.dev_metric import mean_reciprocal_rank
from hyblink.training.families.late_interaction.config import LateInteractionConfig
from hyblink.training.families.vdr.trainable import token_ids


class LateInteractionTrainable:
    """An `InteractionHead` on cached token states, so a step needs no forward pass of the backbone."""

    def __init__(self, config: LateInteractionConfig, cache: Path) -> None:
        self.config = config
        self.model = load_backbone(config).eval().requires_grad_(False)
        transformer = self.model[0].model
        cut_layers(transformer, config.kept_layers)
        words = transformer.get_input_embeddings().weight
        self.head = InteractionHead(words.shape[0], words.shape[1]).to(self.model.device)
        window = min(self.model.max_seq_length, config.passage_tokens)
        backbone = Backbone(TorchTransformer(self.model), window=window, max_tokens=window)
        self._states = StateCache(
            cache, lambda: backbone, f"{identity(config.base)} {config.kept_layers} layers {window}"
        )

    def set_statistics(self, texts: Mapping[str, Sequence[str]]) -> None:
        """Set the head's idf of tokens from the passages of all sources (source name → passages)."""
        frequency_V = np.zeros(len(self.head.idf))
        passages = [item for some in texts.values() for item in some]
        for ids in token_ids(self.model.tokenizer, passages):
            frequency_V[np.unique(np.array(ids, dtype=np.int64))] += 1
        self.head.idf.copy_(torch.from_numpy(idf(frequency_V, len(passages))))

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return dict(self.head.named_parameters())

    def learning_rate(self, name: str) -> float:
        """The peak learning rate: `head_learning_rate` for the projection, times 3 for token weights, 150 for scale."""
        rate = self.config.head_learning_rate
        return {"project.weight": rate, "scale": 150 * rate}.get(name, 3 * rate)

    def train(self, on: bool) -> None:
        self.head.train(on)

    def _tensors(self, text: TextStates) -> tuple[torch.Tensor, torch.Tensor]:
        """States (L - 2, H) and ids (L - 2,) of a text's tokens, without [CLS] and [SEP]."""
        device = self.model.device
        ids = torch.from_numpy(text.ids_L[1:-1].astype(np.int64))
        return torch.from_numpy(text.states_LH[1:-1]).to(device), ids.to(device)

    def scores(self, query: str, passages: Sequence[str]) -> torch.Tensor:
        """The scores of a query's passages, shape (N,), as `LateInteraction` computes them at search time."""
        asked, *found = (self._tensors(state) for state in self._states.get([query, *passages]))
        if not len(asked[1]):
            return torch.zeros(len(passages), device=self.model.device) * self.head.scale
        vectors_AH, learned_A, idf_A = self.head(*asked)
        weights_A = learned_A * idf_A
        states_MH = torch.cat([states for states, _ in found])
        vectors_MH, _, _ = self.head(states_MH, torch.cat([ids for _, ids in found]))
        parts = (vectors_AH @ vectors_MH.T).split([len(ids) for _, ids in found], dim=1)
        share_A = weights_A / weights_A.sum()
        nothing = torch.zeros((), device=self.model.device)
        best = [(share_A * part.amax(dim=1)).sum() if part.shape[1] else nothing for part in parts]
        return self.head.scale * torch.stack(best)

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        total = 0.0
        for sample in drawn:
            scores_N = self.scores(sample.row.query, [text.joined for text in sample.passages])
            if self.config.residual:
                scores_N = scores_N + self.config.residual * torch.tensor(sample.teacher, device=scores_N.device)
            value = -torch.log_softmax(scores_N, dim=0)[0] / len(drawn)
            (value * scale).backward()
            total += float(value.detach())
        return total

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """MRR@10 where each query ranks its own positives and negatives."""
        return mean_reciprocal_rank(rows, self.scores)

    def save(self, folder: Path) -> list[str]:
        return save_head(self.head, folder)
