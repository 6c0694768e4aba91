"""The trainable VDR head and VDR encoder.

Shapes: N texts, Q queries of this process, P all passages of a step, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.weights import calibrated, idf
from hyblink.app.encoders.dense.backbone import Backbone
from hyblink.app.encoders.loading.adapters import VDR_HEAD
from hyblink.app.encoders.loading.in_torch import on_device
from hyblink.app.encoders.loading.models import identity, root_of
from hyblink.app.encoders.loading.prefixes import prefixes_for
from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer
from hyblink.app.encoders.vdr.head import VdrHead, sparse_mask
from hyblink.app.encoders.vdr.in_torch import features_of
from hyblink.app.encoders.vdr.vocabulary import usable_tokens, vocabulary_shift
from hyblink.training.data.batches import Drawn
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.families.adapters import earlier_manifest, files_of
from hyblink.training.families.backbone import load_backbone, prepare
from hyblink.training.families.in_batch import Columns, InBatch, in_batch_loss
from hyblink.training.families.vdr.config import VdrConfig
from hyblink.training.loop.trainer import world
from hyblink.training.losses.contrastive_mask import contrastive_mask
from hyblink.training.losses.flops import flops
from hyblink.training.losses.semi_parametric import VocabularyBatch, svdr_loss, vdr_loss

_COUNTED = 1000

_OF_PASSAGES = "passages."


def token_ids(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the token ids of each text without special tokens and without truncation."""
    for at in range(0, len(texts), _COUNTED):
        yield from tokenizer(list(texts[at : at + _COUNTED]), add_special_tokens=False, verbose=False)["input_ids"]


class VdrTrainable(InBatch[VdrConfig]):
    """A VDR head on a backbone. With `tuning` head only the head is trained, on cached states; else both."""

    def __init__(self, config: VdrConfig, cache: Path, beside: VdrTrainable | None = None) -> None:
        """`cache` is the folder for states of a frozen backbone. A second model of a run shares those of `beside`."""
        self.config = config
        self._frozen = config.tuning == "head"
        self._prefixes = prefixes_for(root_of(config.base))
        self.model, self.head = self._tower()
        self._towers = {"query": (self.model, self.head), "document": (self.model, self.head)}
        if config.separate_towers:
            self._towers["document"] = self._tower()
        self._ratios: dict[str, torch.Tensor] = {}
        self._went_on = False
        self.states: Any = None
        if self._frozen and beside is not None:
            self.states = beside.states
        elif self._frozen:
            from hyblink.training.data.hidden_states import StateCache

            window = min(self.model.max_seq_length, config.passage_tokens)
            backbone = Backbone(TorchTransformer(self.model), window=window, max_tokens=config.passage_tokens)
            self.states = StateCache(
                cache, lambda: backbone, f"{identity(config.base)} {window} {config.passage_tokens}"
            )

    def _tower(self) -> tuple[Any, VdrHead]:
        """A backbone prepared for training, and a new head tied to its input embeddings."""
        config, model = self.config, load_backbone(self.config)
        transformer = model[0].model
        tokenizer = model.tokenizer.backend_tokenizer
        usable_V = usable_tokens(tokenizer)
        shift = vocabulary_shift(tokenizer)
        embeddings = transformer.get_input_embeddings()
        head = VdrHead(
            embeddings.weight.shape[0],
            embeddings.weight.shape[1],
            shift=shift,
            layers=config.layers,
            heads=transformer.config.num_attention_heads,
            intermediate=transformer.config.intermediate_size,
            project=config.project,
            own_path=config.own_path,
            semantic=config.semantic,
            lexical=config.lexical,
            top_k=config.passage_top_k,
            tied_norm=config.tied_norm,
        ).to(model.device)
        usable = torch.zeros(embeddings.weight.shape[0], dtype=torch.bool)
        usable[: len(usable_V)] = torch.from_numpy(usable_V)
        head.usable.copy_(usable[shift:])
        head.start()
        if self._frozen:
            model.requires_grad_(False)
        else:
            model[0].model = prepare(transformer, config)
        head.tie(model[0].model.get_input_embeddings())
        return model, head

    def init_from(self, folder: Path) -> None:
        """Start from the weights of an earlier head, including its idf and mean length.

        `set_statistics` then sets only the ratios of idf. Raises InvalidInputError if its architecture differs.
        """
        earlier_manifest(folder, VDR_HEAD, "VDR", "model.safetensors")
        earlier = VdrHead.load(str(folder), local_files_only=True).float()
        differ = [
            key for key in VdrHead.config_keys if key != "top_k" and getattr(earlier, key) != getattr(self.head, key)
        ]
        if differ:
            raise InvalidInputError(
                "the earlier head is of another form",
                received={key: getattr(earlier, key) for key in differ},
                expected=str({key: getattr(self.head, key) for key in differ}),
            )
        self.head.load_state_dict(earlier.state_dict())
        self._went_on = True

    def set_statistics(self, texts: Mapping[str, Sequence[str]]) -> None:
        """Initialise the lexical part as BM25 with idf and mean length over the passages of all sources.

        `texts` maps source names to passages. If `calibrated`, also stores the ratio of each source's own idf to it,
        which multiplies the query weights of that source.
        """
        counted = {name: self._count(some) for name, some in texts.items()}
        number = sum(len(some) for some in texts.values())
        if self._went_on:
            prior_V = self.head.idf.detach().float().cpu().numpy()
        else:
            prior_V = idf(sum((own for own, _ in counted.values()), np.zeros(len(self.head.idf))), number)
            with torch.no_grad():
                self.head.idf.copy_(torch.from_numpy(prior_V))
                self.head.mean_length.fill_(max(1.0, sum(length for _, length in counted.values()) / max(1, number)))
        of_passages = self._towers["document"][1]
        if of_passages is not self.head:
            with torch.no_grad():
                of_passages.idf.copy_(self.head.idf)
                of_passages.mean_length.copy_(self.head.mean_length)
        if not self.config.calibrated:
            return
        for _, head in self._towers.values():
            head.idf.requires_grad_(False)
        ids = np.arange(len(prior_V), dtype=np.int32)
        ones = TermWeights(ids, np.ones(len(ids), dtype=np.float32))
        for name, (frequency_V, _) in counted.items():
            of_collection = TermWeights(ids, idf(frequency_V, len(texts[name])))
            ratio = calibrated(ones, of_collection, prior_V).weights
            self._ratios[name] = torch.from_numpy(ratio).to(self.model.device)

    def _count(self, texts: Sequence[str]) -> tuple[np.ndarray[Any, Any], int]:
        """Document frequency of each vocabulary entry, shape (V,), and the total number of usable tokens."""
        usable_V = self.head.usable.cpu().numpy()
        frequency_V = np.zeros(len(usable_V))
        length = 0
        for ids in token_ids(self.model.tokenizer, texts):
            inside = np.array([i for i in ids if i >= self.head.shift], dtype=np.int64) - self.head.shift
            inside = inside[usable_V[inside]]
            frequency_V[np.unique(inside)] += 1
            length += len(inside)
        return frequency_V, length

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The trainable parameters by name. Those of a separate passage tower have the prefix `passages.`."""
        found: dict[str, nn.Parameter] = {}
        for task, (model, head) in self._towers.items():
            if task == "document" and head is self.head:
                continue
            prefix = _OF_PASSAGES if task == "document" else ""
            found |= {
                f"{prefix}head.{name}": named_parameter
                for name, named_parameter in head.named_parameters()
                if named_parameter.requires_grad
            }
            if not self._frozen:
                found |= {
                    f"{prefix}{name}": named_parameter
                    for name, named_parameter in model.named_parameters()
                    if named_parameter.requires_grad
                }
        return found

    def learning_rate(self, name: str) -> float:
        """The peak learning rate; the head's is `head_learning_rate`, times 3 for its vectors and scalars."""
        own = name.removeprefix(_OF_PASSAGES)
        if not own.startswith("head."):
            return self.config.learning_rate
        rate = self.config.head_learning_rate
        if own == "head.idf":
            return 0.3 * rate  # slower, so that idf of seen tokens stays comparable with that of unseen ones
        return rate if self.parameters()[name].ndim > 1 else 3 * rate

    def train(self, on: bool) -> None:
        for model, head in self._towers.values():
            model.train(on and not self._frozen)
            head.train(on)

    def _features(self, texts: Sequence[str], tokens: int, task: str) -> dict[str, Any]:
        model = self._towers[task][0]
        if self.states is not None:
            return features_of(self.states.get(texts), model.device)
        model.max_seq_length = tokens
        features = on_device(model.preprocess(list(texts)), model.device)
        return cast("dict[str, Any]", model[0](features))

    def _embed(
        self, texts: Sequence[str], tokens: int, task: str, top_k: int, columns: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        weights_NV, bag_NV = self._towers[task][1].embed(self._features(texts, tokens, task), task, columns)
        mask_NV = sparse_mask(weights_NV.detach(), bag_NV, top_k) if columns is None else torch.ones_like(weights_NV)
        return weights_NV, weights_NV * mask_NV, bag_NV

    def queries(self, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]:
        """Term weights, top-k term weights and bags of tokens of queries, each (Q, V), scaled by the source's idf."""
        prefixed = [self._prefixes.query + row.query for row in rows]
        made = self._embed(prefixed, self.config.query_tokens, "query", self.config.query_top_k)
        if not self._ratios:
            return made
        plain_V = torch.ones_like(made[0][0])  # for sources without statistics
        ratio_QV = torch.stack([self._ratios.get(row.collection, plain_V) for row in rows])
        weights_QV, sparse_QV, bag_QV = made
        return weights_QV * ratio_QV, sparse_QV * ratio_QV, bag_QV * ratio_QV

    def passages(self, texts: Sequence[Text], columns: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Term weights, top-k term weights and bags of tokens of passages, each (P, V), or only `columns` of them."""
        prefixed = [self._prefixes.passage + text.joined for text in texts]
        return self._embed(prefixed, self.config.passage_tokens, "document", self.config.passage_top_k, columns)

    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return made[1]

    def loss(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...], batch: Columns) -> torch.Tensor:
        nll = partial(in_batch_loss, columns=batch, config=self.config)
        queries, passages = VocabularyBatch(*q), VocabularyBatch(*p)
        if self.config.contrastive_mask:
            # Each query is paired with its own positive.
            own = passages.weights_NV[batch.gold_Q]
            bags, masked = contrastive_mask(
                queries.bag_NV, passages.bag_NV[batch.gold_Q], own, self.config.contrastive_mask
            )
            weights = passages.weights_NV.index_copy(0, batch.gold_Q, masked)
            queries = VocabularyBatch(queries.weights_NV, queries.sparse_NV, bags)
            passages = VocabularyBatch(weights, passages.sparse_NV, passages.bag_NV)
        if self.config.loss == "svdr":
            total = svdr_loss(queries, passages, nll)
        elif self.config.loss == "vdr":
            total = vdr_loss(queries, passages, nll)
        else:
            total = nll(queries.weights_NV @ passages.weights_NV.T)
        if self.config.flops:
            total = total + self.config.flops * (flops(queries.weights_NV) + flops(passages.weights_NV))
        return total

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        """As in the base class. The two-way loss needs only the vocabulary columns that some query uses, so passages
        are computed for these columns only (in a single process, without caching, mask or FLOPS).
        """
        alone = world()[1] == 1 and not self.config.mini_batch
        if self.config.loss != "vdr" or not alone or self.config.contrastive_mask or self.config.flops:
            return super().backward(drawn, scale)
        columns = Columns.of(drawn)
        weights_QV, sparse_QV, bag_QV = self.queries([sample.row for sample in drawn])
        used = ((sparse_QV.detach() > 0) | (bag_QV > 0)).any(dim=0).nonzero()[:, 0]
        p = self.passages([text for sample in drawn for text in sample.passages], used)
        value = self.loss((weights_QV[:, used], sparse_QV[:, used], bag_QV[:, used]), p, columns)
        (value * scale).backward()
        return float(value.detach())

    def save(self, folder: Path) -> list[str]:
        if self._frozen:
            self.head.half().save(str(folder))
            self.head.float()
            return ["config.json", "model.safetensors"]
        from sentence_transformers import SparseEncoder
        from sentence_transformers.sparse_encoder.modules import Router

        modules: list[list[Any]] = []
        for model, head in self._towers.values():
            if self.config.tuning == "lora" and hasattr(model[0].model, "merge_and_unload"):
                model[0].model = model[0].model.merge_and_unload()
            model.max_seq_length = self.config.passage_tokens
            modules.append([model[0], head])
        shared = self._towers["document"][1] is self.head
        encoder = SparseEncoder(
            modules=modules[0] if shared else [Router.for_query_document(*modules)], similarity_fn_name="dot"
        )
        encoder.save(str(folder), create_model_card=False)
        return files_of(folder)
