"""Models that learn: VDR heads and encoders, bi-encoders, cross-encoders. Each is a sentence-transformers model.

Shapes: Q queries of this process, P all passages of a step (each query's positive and negatives, of all processes), V
vocabulary, D dimension.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.weights import calibrated, idf
from hyblink.app.encoders.cross_encoder.transformer import load_cross_encoder
from hyblink.app.encoders.dense.backbone import Backbone
from hyblink.app.encoders.dense.transformer import cut_layers, load_sentence_transformer, on_device
from hyblink.app.encoders.loading.adapters import VDR_HEAD, adapter_manifest
from hyblink.app.encoders.loading.models import identity, root_of
from hyblink.app.encoders.loading.prefixes import prefixes_for
from hyblink.app.encoders.vdr.adapter import features_of
from hyblink.app.encoders.vdr.head import VdrHead, sparse_mask
from hyblink.app.encoders.vdr.vocabulary import usable_tokens, vocabulary_shift
from hyblink.training.data.batches import Drawn
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.linking.vectors import EntityVectors
from hyblink.training.loop.trainer import world
from hyblink.training.losses.cached import cached_backward
from hyblink.training.losses.contrastive_mask import contrastive_mask
from hyblink.training.losses.distillation import kl_divergence, margin_mse
from hyblink.training.losses.flops import flops
from hyblink.training.losses.gather import gather
from hyblink.training.losses.in_batch_nll import in_batch_nll
from hyblink.training.losses.semi_parametric import VocabularyBatch, svdr_loss, vdr_loss
from hyblink.training.recipes import RunConfig
from hyblink.training.registry import kind_of

DEV_CUTOFF = 10
_DEV_BATCH = 64
_COUNTED = 1000
_OF_PASSAGES = "passages."


def device() -> str:
    """Where training computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_backbone(config: RunConfig) -> Any:
    """The SentenceTransformer that a run starts from. Raises EncoderUnavailableError where it cannot be loaded."""
    torch.manual_seed(config.seed)  # adapters and heads start from random numbers
    return load_sentence_transformer(config.base, device())


def with_lora(transformer: nn.Module, rank: int, extra: Sequence[str] = (), frozen_layers: int = 0) -> nn.Module:
    """The transformer with low-rank adapters in every linear layer but those of the lowest `frozen_layers`.

    Only the adapters learn, and modules named in `extra`.
    """
    from peft import LoraConfig, get_peft_model

    above = [number for number in sorted(_layers(transformer)) if number >= frozen_layers] if frozen_layers else None
    names = {name.rpartition(".")[2] for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    targets = sorted(names - {"classifier", "out_proj", "score"} - set(extra))
    wrapped = get_peft_model(
        cast("Any", transformer),
        LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.0,
            target_modules=targets,
            modules_to_save=list(extra) or None,
            layers_to_transform=above,
        ),
    )
    return cast("nn.Module", wrapped)


_LAYER = re.compile(r"\.layers?\.(\d+)\.")


def _layers(transformer: nn.Module) -> dict[int, list[nn.Parameter]]:
    """The parameters of each numbered layer."""
    found: dict[int, list[nn.Parameter]] = {}
    for name, tensor in transformer.named_parameters():
        if match := _LAYER.search(f".{name}"):
            found.setdefault(int(match.group(1)), []).append(tensor)
    return found


def _embeddings_of(transformer: nn.Module) -> nn.Module:
    """What comes before the layers: the module that holds the word embeddings, unless it holds the layers as well."""
    words: nn.Module = cast("Any", transformer).get_input_embeddings()
    for module in transformer.modules():
        if any(child is words for child in module.children()) and not _layers(module):
            return module
    return words


def prepare(transformer: nn.Module, config: RunConfig, extra: Sequence[str] = ()) -> nn.Module:
    """A transformer as the run's tuning trains it: with adapters or whole, lowest layers frozen, dropout as asked.

    Raises InvalidInputError where every layer would be frozen.
    """
    if config.frozen_layers and config.frozen_layers > max(_layers(transformer), default=-1):
        raise InvalidInputError(
            "no layer is left to train", received=f"frozen_layers {config.frozen_layers}", expected="fewer layers"
        )
    if not config.dropout:
        for module in transformer.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    if config.gradient_checkpointing:
        cast("Any", transformer).gradient_checkpointing_enable()
    if config.tuning == "lora":
        return with_lora(transformer, config.lora_rank, extra, config.frozen_layers)
    if config.frozen_layers:
        _embeddings_of(transformer).requires_grad_(False)
        for number, tensors in _layers(transformer).items():
            for tensor in tensors:
                tensor.requires_grad_(number >= config.frozen_layers)
    return transformer


def reciprocal_rank(scores_QP: torch.Tensor, gold_QP: torch.Tensor) -> float:
    """Mean over queries of 1 / rank of the first relevant passage, 0 beyond `DEV_CUTOFF`."""
    best_Q = scores_QP.masked_fill(~gold_QP, -torch.inf).amax(dim=1, keepdim=True)
    rank_Q = (scores_QP > best_Q).sum(dim=1) + 1
    return float(torch.where(rank_Q <= DEV_CUTOFF, 1.0 / rank_Q, torch.zeros(())).mean())


def mean_reciprocal_rank(rows: Sequence[TrainingRow], scores: Callable[[str, Sequence[str]], torch.Tensor]) -> float:
    """MRR@10 over each row's own positives and negatives; `scores` gives those (N,) of a query's passages."""
    values = []
    for row in rows:
        scores_N = scores(row.query, [one.joined for one in (*row.positives, *row.negatives)])
        gold_N = torch.zeros(len(scores_N), dtype=torch.bool, device=scores_N.device)
        gold_N[: len(row.positives)] = True
        values.append(reciprocal_rank(scores_N[None], gold_N[None]))
    return float(np.mean(values))


def token_ids(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    """Each text's tokens without the special ones, whatever its length."""
    for at in range(0, len(texts), _COUNTED):
        yield from tokenizer(list(texts[at : at + _COUNTED]), add_special_tokens=False, verbose=False)["input_ids"]


class _Whole:
    """What bi-encoders and cross-encoders share: everything of the model that may learn does, at one rate."""

    config: RunConfig
    model: Any

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad}

    def learning_rate(self, name: str) -> float:  # noqa: ARG002
        return self.config.learning_rate

    def train(self, on: bool) -> None:
        self.model.train(on)

    def go_on_from(self, folder: Path) -> None:
        """Begin with an adapter that was trained before. Raises InvalidInputError where it is of another form."""
        load_adapter(self.model[0].model, kind_of(self.config), self.config, folder)


def _earlier(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of what a run goes on from. Raises InvalidInputError where the folder does not hold that."""
    try:
        return adapter_manifest(folder, kind)
    except EncoderUnavailableError as error:
        raise InvalidInputError(
            f"cannot go on from it: {error}", received=error.received, expected=error.expected
        ) from error


def load_adapter(transformer: Any, kind: str, config: RunConfig, folder: Path) -> None:
    """A LoRA adapter's weights into a transformer that has adapters. Raises InvalidInputError where they do not fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    manifest = _earlier(folder, kind)
    form = {"base": str(manifest["base"]), "layers": int(manifest.get("layers", 0))}
    wanted = {"base": config.base, "layers": config.kept_layers}
    tensors = load_file(folder / "adapter_model.safetensors")
    own = {name: tensor.shape for name, tensor in get_peft_model_state_dict(transformer).items()}
    if form != wanted or own != {name: tensor.shape for name, tensor in tensors.items()}:
        raise InvalidInputError(
            "the earlier adapter is of another form",
            received=f"{form}, {len(tensors)} tensors",
            expected=f"{wanted}, {len(own)} tensors; the same lora_rank and frozen_layers",
        )
    set_peft_model_state_dict(transformer, {name: tensor.float() for name, tensor in tensors.items()})


def _files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


def save_adapter(transformer: Any, base: str, folder: Path, *, half: bool = False) -> list[str]:
    """Write a model's LoRA adapter into `folder`; the files' names. With `half`, in half precision."""
    for known in transformer.peft_config.values():
        known.base_model_name_or_path = base  # and not where it lies on this machine
    if half:
        transformer.half()
    transformer.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    if half:
        transformer.float()
    (folder / "README.md").unlink(missing_ok=True)
    return ["adapter_model.safetensors", "adapter_config.json"]


class _InBatch(ABC):
    """What bi-encoders and VDR share: which column is whose, gathering, gradient caching, the dev metric."""

    config: RunConfig

    @abstractmethod
    def queries(self, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]:
        """Embeddings of queries, each with a row for every query."""

    @abstractmethod
    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]:
        """Embeddings of passages."""

    @abstractmethod
    def loss(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...], batch: _Columns) -> torch.Tensor:
        """The mean loss of this process's queries."""

    @abstractmethod
    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Of what `queries` or `passages` made, that whose dot products are a search's scores."""

    def scores(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Scores (Q, P) as a search would give them."""
        return self.embedding(q) @ self.embedding(p).T

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        columns = _Columns.of(drawn)
        texts = [text for one in drawn for text in one.passages]
        if not self.config.mini_batch:
            q, p = self.queries([one.row for one in drawn]), self.passages(texts)
            value = self.loss(q, tuple(gather(one) for one in p), columns)
            (value * scale).backward()
            return float(value.detach())
        size, width = self.config.mini_batch, columns.width
        chunks = [drawn[at : at + size] for at in range(0, len(drawn), size)]

        def embed(chunk: int) -> tuple[torch.Tensor, ...]:
            some = chunks[chunk]
            return (*self.queries([o.row for o in some]), *self.passages([t for o in some for t in o.passages]))

        def loss(made: Sequence[tuple[torch.Tensor, ...]]) -> torch.Tensor:
            kinds = len(made[0]) // 2
            whole = tuple(torch.cat(parts) for parts in zip(*made, strict=True))
            assert len(whole[kinds]) == len(whole[0]) * width
            return self.loss(whole[:kinds], tuple(gather(one) for one in whole[kinds:]), columns) * scale

        return float(cached_backward(len(chunks), embed, loss)) / scale

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """MRR@10 of dev queries over the union of their positives and negatives."""
        texts: dict[str, Text] = {}
        for row in rows:
            for one in (*row.positives, *row.negatives):
                texts.setdefault(one.joined, one)
        place = {joined: at for at, joined in enumerate(texts)}
        some = list(texts.values())
        p = [self.passages(some[at : at + _DEV_BATCH]) for at in range(0, len(some), _DEV_BATCH)]
        whole = tuple(torch.cat(parts) for parts in zip(*p, strict=True))
        values = []
        for first in range(0, len(rows), _DEV_BATCH):
            part = rows[first : first + _DEV_BATCH]
            scores_QP = self.scores(self.queries(part), whole).float().cpu()
            gold_QP = torch.zeros(scores_QP.shape, dtype=torch.bool)
            for at, row in enumerate(part):
                gold_QP[at, [place[one.joined] for one in row.positives]] = True
            values += [reciprocal_rank(scores_QP[at : at + 1], gold_QP[at : at + 1]) for at in range(len(part))]
        return float(np.mean(values))


class _Columns:
    """Where each query's passages stand among the gathered ones."""

    def __init__(self, gold_Q: torch.Tensor, width: int, others_QP: torch.Tensor, teacher_QN: torch.Tensor) -> None:
        self.gold_Q, self.width, self.others_QP, self.teacher_QN = gold_Q, width, others_QP, teacher_QN

    @classmethod
    def of(cls, drawn: Sequence[Drawn]) -> _Columns:
        widths = {len(one.passages) for one in drawn}
        width = max(widths)
        if len(widths) > 1:
            raise ValueError(f"queries with {sorted(widths)} passages in one step; expected as many for all")
        rank, size = world()
        first = rank * len(drawn) * width
        gold_Q = first + width * torch.arange(len(drawn))
        others_QP = torch.zeros(len(drawn), len(drawn) * width * size, dtype=torch.bool)
        for at, one in enumerate(drawn):
            relevant = {text.joined for text in one.row.positives}
            for place, text in enumerate(t for o in drawn for t in o.passages):
                column = first + place
                others_QP[at, column] = text.joined in relevant and column != int(gold_Q[at])
        teacher_QN = torch.tensor([one.teacher for one in drawn], dtype=torch.float32)
        return cls(gold_Q.to(device()), width, others_QP.to(device()), teacher_QN.to(device()))

    def own(self, scores_QP: torch.Tensor) -> torch.Tensor:
        """Each query's own passages' scores, shape (Q, N), positive first."""
        columns_QN = self.gold_Q[:, None] + torch.arange(self.width, device=scores_QP.device)[None, :]
        return scores_QP.gather(1, columns_QN)


def in_batch_loss(scores_QP: torch.Tensor, columns: _Columns, config: RunConfig) -> torch.Tensor:
    """NLL or margin-MSE over scores, and the KL divergence to the teacher for queries whose scores it gave."""
    if config.loss == "margin_mse":
        return margin_mse(columns.own(scores_QP), columns.teacher_QN)
    total = in_batch_nll(
        scores_QP,
        columns.gold_Q,
        temperature=config.temperature,
        other_positives_QP=columns.others_QP,
        symmetric=config.symmetric,
    )
    taught_Q = torch.isfinite(columns.teacher_QN).all(dim=1)
    if config.distil and bool(taught_Q.any()):
        own_QN = columns.own(scores_QP)[taught_Q]
        teacher_QN = columns.teacher_QN[taught_Q].clone()
        teacher_QN[:, 0] += config.gold_bonus
        total = total + config.distil * kl_divergence(
            own_QN,
            teacher_QN,
            student_temperature=config.temperature,
            teacher_temperature=config.teacher_temperature,
        )
    return total


class DenseStudent(_Whole, _InBatch):
    """A bi-encoder: SentenceTransformer, cosine of its vectors."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.model = load_backbone(config)
        self._prefixes = prefixes_for(root_of(config.base))
        self.model[0].model = prepare(self.model[0].model, config)

    def _embed(self, texts: Sequence[str], tokens: int) -> tuple[torch.Tensor, ...]:
        self.model.max_seq_length = tokens
        features = on_device(self.model.preprocess(list(texts)), self.model.device)
        return (nn.functional.normalize(self.model(features)["sentence_embedding"].float(), dim=-1),)

    def queries(self, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]:
        return self._embed([self._prefixes.query + row.query for row in rows], self.config.query_tokens)

    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]:
        return self._embed([self._prefixes.passage + one.joined for one in texts], self.config.passage_tokens)

    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return made[0]

    def loss(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...], batch: _Columns) -> torch.Tensor:
        return in_batch_loss(self.scores(q, p), batch, self.config)

    def save(self, folder: Path) -> list[str]:
        if self.config.tuning == "lora":
            return save_adapter(self.model[0].model, self.config.base, folder)
        self.model.max_seq_length = self.config.passage_tokens
        self.model.save(str(folder), create_model_card=False)
        return _files(folder)


class MentionStudent(DenseStudent):
    """The mention tower of a bi-encoder (Wu et al. 2020) beside entities whose vectors stay.

    Those are a knowledge base's, or what the frozen base makes of their texts.
    """

    def __init__(self, config: RunConfig, vectors: EntityVectors | None) -> None:
        super().__init__(config)
        self._vectors = vectors
        self._frozen: Any = None if vectors is not None else load_backbone(config).eval().requires_grad_(False)
        self._made: dict[str, torch.Tensor] = {}
        if vectors is not None:
            vectors.check_encoder(config.base)

    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]:
        if self._vectors is not None:
            return (torch.from_numpy(self._vectors.get([one.id for one in texts])).to(self.model.device),)
        new = list({one.joined: one for one in texts if one.joined not in self._made}.values())
        for at in range(0, len(new), _DEV_BATCH):
            part = [self._prefixes.passage + one.joined for one in new[at : at + _DEV_BATCH]]
            self._frozen.max_seq_length = self.config.passage_tokens
            with torch.no_grad():
                features = on_device(self._frozen.preprocess(part), self._frozen.device)
                made = nn.functional.normalize(self._frozen(features)["sentence_embedding"].float(), dim=-1)
            self._made |= {one.joined: own for one, own in zip(new[at : at + _DEV_BATCH], made, strict=True)}
        return (torch.stack([self._made[one.joined] for one in texts]),)

    def save(self, folder: Path) -> list[str]:
        return save_adapter(self.model[0].model, self.config.base, folder, half=True)


class VdrStudent(_InBatch):
    """A VDR head over a backbone: the head alone on cached states, or both."""

    def __init__(self, config: RunConfig, cache: Path, beside: VdrStudent | None = None) -> None:
        """`cache` keeps a frozen backbone's states; a second student shares those of the one it stands `beside`."""
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
            backbone = Backbone(self.model, window=window, max_tokens=config.passage_tokens)
            self.states = StateCache(
                cache, lambda: backbone, f"{identity(config.base)} {window} {config.passage_tokens}"
            )

    def _tower(self) -> tuple[Any, VdrHead]:
        """A backbone as the run trains it, and a new head tied to its embeddings."""
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

    def go_on_from(self, folder: Path) -> None:
        """Begin with the weights of a head that was trained before. Raises InvalidInputError where it is of other form.

        Its statistics stay as well: `set_statistics` then gives the ratios only.
        """
        _earlier(folder, VDR_HEAD)
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
        """Start the lexical part from BM25 over the texts of all collections; with the ratios to each one's own idf."""
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
        """In how many texts each vocabulary entry stands, shape (V,), and how many usable tokens there are."""
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
        """Those of separate passage towers begin with `passages.`."""
        found: dict[str, nn.Parameter] = {}
        for task, (model, head) in self._towers.items():
            if task == "document" and head is self.head:
                continue
            prefix = _OF_PASSAGES if task == "document" else ""
            found |= {f"{prefix}head.{name}": one for name, one in head.named_parameters() if one.requires_grad}
            if not self._frozen:
                found |= {f"{prefix}{name}": one for name, one in model.named_parameters() if one.requires_grad}
        return found

    def learning_rate(self, name: str) -> float:
        own = name.removeprefix(_OF_PASSAGES)
        if not own.startswith("head."):
            return self.config.learning_rate
        rate = self.config.head_learning_rate
        if own == "head.idf":
            return 0.3 * rate  # tokens seen must not run away from the ones that training never shows
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
        prefixed = [self._prefixes.query + row.query for row in rows]
        made = self._embed(prefixed, self.config.query_tokens, "query", self.config.query_top_k)
        if not self._ratios:
            return made
        plain_V = torch.ones_like(made[0][0])  # a collection whose statistics nobody gave
        ratio_QV = torch.stack([self._ratios.get(row.collection, plain_V) for row in rows])
        weights_QV, sparse_QV, bag_QV = made
        return weights_QV * ratio_QV, sparse_QV * ratio_QV, bag_QV * ratio_QV

    def passages(self, texts: Sequence[Text], columns: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        prefixed = [self._prefixes.passage + one.joined for one in texts]
        return self._embed(prefixed, self.config.passage_tokens, "document", self.config.passage_top_k, columns)

    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return made[1]

    def loss(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...], batch: _Columns) -> torch.Tensor:
        nll = partial(in_batch_loss, columns=batch, config=self.config)
        queries, passages = VocabularyBatch(*q), VocabularyBatch(*p)
        if self.config.contrastive_mask:
            # Rows are paired with their own positives.
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
        """As for all; but the two-way loss needs only the columns that some query has, so only they are made."""
        alone = world()[1] == 1 and not self.config.mini_batch
        if self.config.loss != "vdr" or not alone or self.config.contrastive_mask or self.config.flops:
            return super().backward(drawn, scale)
        columns = _Columns.of(drawn)
        weights_QV, sparse_QV, bag_QV = self.queries([one.row for one in drawn])
        used = ((sparse_QV.detach() > 0) | (bag_QV > 0)).any(dim=0).nonzero()[:, 0]
        p = self.passages([text for one in drawn for text in one.passages], used)
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
        return _files(folder)


class _Beside(nn.Module):  # type: ignore[misc]
    """Adds the first stage's scores of the same pairs."""

    scores: torch.Tensor | float = 0.0

    def forward(self, scores_N: torch.Tensor) -> torch.Tensor:
        return scores_N + self.scores


class CrossStudent(_Whole):
    """A cross-encoder with one output, by sentence-transformers' own losses."""

    def __init__(self, config: RunConfig) -> None:
        from sentence_transformers.cross_encoder import losses

        self.config = config
        torch.manual_seed(config.seed)  # the output layer starts from random numbers
        self.model = load_cross_encoder(config.base, device(), config.passage_tokens)
        cut_layers(self.model[0].model, config.kept_layers)
        transformer = self.model[0].model
        extra = [name for name in ("pooler", "classifier") if _has(transformer, name)]
        self.model[0].model = prepare(transformer, config, extra)
        made: dict[str, Any] = {
            "listwise": partial(losses.ListNetLoss, activation_fn=_Beside()),
            "lambda": losses.LambdaLoss,
            "bce": losses.BinaryCrossEntropyLoss,
            "margin_mse": losses.MarginMSELoss,
        }
        self._loss = made[config.loss](self.model)

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        queries = [one.row.query for one in drawn]
        value: torch.Tensor
        if self.config.loss in {"listwise", "lambda"}:
            documents = [[text.joined for text in one.passages] for one in drawn]
            if self.config.residual:
                beside = [score for one in drawn for score in one.teacher]
                self._loss.activation_fn.scores = self.config.residual * torch.tensor(beside, device=self.model.device)
            value = self._loss([queries, documents], [self._labels(one) for one in drawn])
        elif self.config.loss == "bce":
            pairs = [
                (one.row.query, text.joined, float(n == 0)) for one in drawn for n, text in enumerate(one.passages)
            ]
            asked, texts, labels = zip(*pairs, strict=True)
            value = self._loss([list(asked), list(texts)], torch.tensor(labels, device=self.model.device))
        else:
            margins = torch.tensor([one.teacher[0] - one.teacher[1] for one in drawn], device=self.model.device)
            value = self._loss(
                [queries, [o.positive.joined for o in drawn], [o.negatives[0].joined for o in drawn]], margins
            )
        (value * scale).backward()
        return float(value.detach())

    def _labels(self, one: Drawn) -> torch.Tensor:
        """The positive counts most; a teacher's scores share out the rest where it gave any."""
        labels = torch.zeros(len(one.passages))
        labels[0] = 1.0
        teacher = torch.tensor(one.teacher)
        if self.config.loss == "listwise":
            # ListNet takes softmax(labels): this puts nearly all mass on the positive, or a teacher's share of it.
            labels[0] = 10.0
            if self.config.distil and bool(torch.isfinite(teacher).all()):
                teacher[0] += self.config.gold_bonus
                taught = torch.softmax(teacher / self.config.teacher_temperature, dim=0)
                gold = torch.zeros(len(one.passages))
                gold[0] = 1.0
                share = self.config.distil / (1 + self.config.distil)
                labels = torch.log(((1 - share) * gold + share * taught).clamp(min=1e-6))
        return labels.to(self.model.device)

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """MRR@10 over each row's own positives and negatives."""

        def scores(query: str, passages: Sequence[str]) -> torch.Tensor:
            made = self.model.predict([(query, text) for text in passages], show_progress_bar=False)
            return torch.from_numpy(np.asarray(made))

        return mean_reciprocal_rank(rows, scores)

    def save(self, folder: Path) -> list[str]:
        if self.config.tuning == "lora":
            return save_adapter(self.model[0].model, self.config.base, folder, half=True)
        self.model.save(str(folder), create_model_card=False)
        return _files(folder)


def _has(module: nn.Module, name: str) -> bool:
    return any(found.rpartition(".")[2] == name for found, _ in module.named_modules())
