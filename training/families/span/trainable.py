"""The trainable span head of ELQ (Li et al. 2020): binary cross-entropy over spans plus cross-entropy over entities.

With fixed entity vectors, the negatives of a mention are the other entities of the step, random entities, and wrong
candidates if they were mined (`hyblink kb spans --hard`). With `train_entities`, entities are encoded by the same
trained weights and only the other entities of the step are negatives. The knowledge base must then be re-encoded with
the trained model.

Shapes: B texts, L tokens, H hidden, D dimension, M gold mentions of a step, E entities to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.linking import without_overlaps
from hyblink.app.encoders.loading.adapters import SPAN_HEAD
from hyblink.app.encoders.loading.in_torch import on_device
from hyblink.app.encoders.loading.models import root_of
from hyblink.app.encoders.loading.prefixes import prefixes_for
from hyblink.app.encoders.mention.span_head import HEADS, span_scores, valid_spans, word_edges
from hyblink.app.evaluation.linking.span_measures import micro
from hyblink.training.data.batches import Drawn
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.families.adapters import load_adapter, save_adapter
from hyblink.training.families.backbone import load_backbone, prepare
from hyblink.training.families.span.config import SpanConfig
from hyblink.training.linking.spans import SpanRow
from hyblink.training.linking.vectors import EntityVectors

_OTHERS = 1024
"""Number of random entities added as negatives in each step."""


class SpanTrainable:
    """A backbone with LoRA and two heads: start, end and inside logits per token, and a projection to entity space."""

    def __init__(self, config: SpanConfig, vectors: EntityVectors | None) -> None:
        if vectors is not None:
            vectors.check_encoder(config.base)
        self.config = config
        self.model = load_backbone(config)
        self.model[0].model = prepare(self.model[0].model, config)
        hidden = self.model[0].model.get_input_embeddings().weight.shape[1]
        self._vectors = vectors
        self.head = nn.Linear(hidden, 3).to(self.model.device)
        dimension = vectors.dimension if vectors is not None else int(self.model.get_embedding_dimension() or hidden)
        self.projection = nn.Linear(hidden, dimension, bias=False).to(self.model.device)
        self._prefix = prefixes_for(root_of(config.base)).passage
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(torch.tensor([-2.0, -2.0, 0.0]))  # few spans are mentions
            nn.init.eye_(self.projection.weight)

    def init_from(self, folder: Path) -> None:
        """Start from the weights of an earlier head and its adapter. Raises InvalidInputError if they do not fit."""
        load_adapter(self.model[0].model, SPAN_HEAD, self.config, folder)
        known = load_file(str(folder / HEADS))
        if known["projection"].shape != self.projection.weight.shape:
            raise InvalidInputError(
                "the earlier head is for other vectors", received=list(known["projection"].shape),
                expected=str(list(self.projection.weight.shape)),
            )  # fmt: skip
        with torch.no_grad():
            self.head.weight.copy_(known["weight"])
            self.head.bias.copy_(known["bias"])
            self.projection.weight.copy_(known["projection"])

    def parameters(self) -> Mapping[str, nn.Parameter]:
        own = {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}
        own["projection.weight"] = self.projection.weight
        return own | {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad}

    def learning_rate(self, name: str) -> float:
        return self.config.head_learning_rate if name.startswith("head.") else self.config.learning_rate

    def train(self, on: bool) -> None:
        self.model.train(on)

    def _read(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[list[tuple[int, int]]]]:
        """Token states (B, L, H) without the leading special token, and the character offsets of each text's tokens."""
        made = self.model.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.config.query_tokens,
            return_offsets_mapping=True, return_tensors="pt",
        )  # fmt: skip
        features = {name: made[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        states = self.model[0](features)["token_embeddings"].float()
        offsets = [
            [(int(a), int(b)) for a, b in own[: int(mask.sum())].tolist()][1:-1]
            for own, mask in zip(made["offset_mapping"], made["attention_mask"], strict=True)
        ]
        return states[:, 1:], offsets

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        """Add the gradients of `scale · loss`; returns the loss.

        The loss is the sum of binary cross-entropies of all spans divided by the number of gold mentions, plus the mean
        cross-entropy of the gold mentions' entities.
        """
        rows = [sample.row for sample in drawn]
        assert all(isinstance(row, SpanRow) for row in rows)
        states, offsets = self._read([row.query for row in rows])
        loss = states.sum() * 0.0
        vectors: list[torch.Tensor] = []
        meant: list[Text] = []
        wrong: list[str] = []
        count = 0
        for at, row in enumerate(rows):
            assert isinstance(row, SpanRow)
            own = states[at, : len(offsets[at])]
            first, last = valid_spans(*word_edges(offsets[at], row.query))
            if not len(first):
                continue
            gold = dict(zip(row.spans, row.positives, strict=True))
            hard = dict(zip(row.spans, row.hard, strict=True)) if row.hard else {}
            ignored = set(row.ignored)
            where = [(offsets[at][i][0], offsets[at][j][1]) for i, j in zip(first.tolist(), last.tolist(), strict=True)]
            kept = np.array([span in gold or span not in ignored for span in where])
            label = torch.tensor([float(span in gold) for span in where], device=own.device)
            score = span_scores(self.head(own), torch.from_numpy(first), torch.from_numpy(last))
            each = nn.functional.binary_cross_entropy_with_logits(score, label, reduction="none")
            loss = loss + (each * torch.from_numpy(kept).to(each.device)).sum()
            for place, span in enumerate(where):
                if span in gold:
                    count += 1
                    if self._vectors is None or gold[span].id in self._vectors:
                        vectors.append(own[first[place] : last[place] + 1].mean(dim=0))
                        meant.append(gold[span])
                        wrong += hard.get(span, ())[: self.config.negatives]
        loss = loss / max(1, count)
        if vectors:
            loss = loss + self._entities(torch.stack(vectors), meant, wrong)
        (loss * scale).backward()
        return float(loss.detach())

    def _entities(self, states_MH: torch.Tensor, meant: Sequence[Text], wrong: Sequence[str]) -> torch.Tensor:
        ids = list(dict.fromkeys(item.id for item in meant))
        if self._vectors is None:
            E_ED = self._embedded({item.id: item for item in meant})
        else:
            others = torch.randint(len(self._vectors), (_OTHERS,)).tolist()
            mined = [item for item in wrong if item in self._vectors]
            ids = list(dict.fromkeys([*ids, *mined, *(self._vectors.ids[at] for at in others)]))
            E_ED = torch.from_numpy(self._vectors.get(ids)).to(states_MH.device)
        place = {item: at for at, item in enumerate(ids)}
        made_MD = nn.functional.normalize(self.projection(states_MH), dim=-1)
        gold_M = torch.tensor([place[item.id] for item in meant], device=states_MH.device)
        return nn.functional.cross_entropy(made_MD @ E_ED.T / self.config.temperature, gold_M)

    def _embedded(self, entities: Mapping[str, Text]) -> torch.Tensor:
        """Entity vectors from the current weights, shape (E, D), L2-normalised."""
        without = [entity for entity, text in entities.items() if not text.joined.strip()]
        if without:
            raise InvalidInputError(
                "entities without a text", received=without[:5], expected="rows of hyblink kb spans --descriptions"
            )
        self.model.max_seq_length = self.config.passage_tokens
        features = self.model.preprocess([self._prefix + entity.joined for entity in entities.values()])
        made = self.model(on_device(features, self.model.device))["sentence_embedding"].float()
        return nn.functional.normalize(made, dim=-1)

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """Micro F1 of mention detection with exact spans at probability .5; ignored spans do not count as errors."""
        found, gold = [], []
        for row in rows:
            assert isinstance(row, SpanRow)
            states, (offsets,) = self._read([row.query])
            reach = offsets[-1][1] if offsets else 0
            first, last = valid_spans(*word_edges(offsets, row.query))
            score = span_scores(self.head(states[0, : len(offsets)]), torch.from_numpy(first), torch.from_numpy(last))
            kept = np.flatnonzero((score > 0).cpu().numpy())
            tokens = list(zip(first[kept].tolist(), (last[kept] + 1).tolist(), strict=True))
            chosen = without_overlaps(tokens, score.cpu().numpy()[kept].tolist())
            spans = {(offsets[first[kept[at]]][0], offsets[last[kept[at]]][1]) for at in chosen}
            found.append({(a, b, "") for a, b in spans if (a, b) not in set(row.ignored) or (a, b) in row.spans})
            gold.append({(a, b, "") for a, b in row.spans if b <= reach})
        return micro(found, gold, weak=False).f1

    def save(self, folder: Path) -> list[str]:
        tensors = {"weight": self.head.weight, "bias": self.head.bias, "projection": self.projection.weight}
        save_file(
            {name: value.detach().half().cpu().contiguous() for name, value in tensors.items()}, str(folder / HEADS)
        )
        return [HEADS, *save_adapter(self.model[0].model, self.config.base, folder, half=True)]
