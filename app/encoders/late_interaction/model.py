"""Late interaction: each query token is matched with its most similar passage token (Khattab & Zaharia 2020).

Query and passage are encoded separately, by the lower layers of a backbone. The score is equation 3 there with weights:

    scale · Σ_t w_t · max_u ⟨q_t, p_u⟩ / Σ_t w_t,    w_t = idf(t) · exp(2 tanh(a(q_t) / 2))

over the query's tokens t and the passage's tokens u, vectors L2-normalised, without [CLS] and [SEP]. idf is the
collection's if it is given, else that of the training passages. The head (`head.py`) is a linear map H → H of the
states, a learned correction a(·) of each token's idf, and the scale. `alignment` explains a score: it lists the passage
token matched with each query token.

Shapes: B texts, L tokens of a text with [CLS] and [SEP], H hidden; A tokens of a query, N of a passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hyblink.app.core.budget import forward_pass
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights
from hyblink.app.encoders.graphs.precision import GraphPrecision
from hyblink.app.encoders.graphs.weights import read_arrays
from hyblink.app.encoders.late_interaction.correction import SHARPEST
from hyblink.app.encoders.loading.models import plain_tokenizer
from hyblink.app.encoders.loading.sources import source_of, tokens_in
from hyblink.app.encoders.loading.tokens import padded
from hyblink.app.encoders.runtimes.choice import graph_cache
from hyblink.app.encoders.runtimes.onnx_transformer import OnnxTransformer, unit


@dataclass(frozen=True, slots=True)
class Read:
    """An encoded text of N tokens, without special tokens.

    It holds the tokens as strings and ids, their unit vectors, the learned corrections of their idf, and their idf in
    the training passages.
    """

    tokens: tuple[str, ...]
    ids_N: npt.NDArray[np.int64]
    vectors_NH: npt.NDArray[np.float32]
    learned_N: npt.NDArray[np.float32]
    idf_N: npt.NDArray[np.float32]

    def shares(self, idf: TermWeights | None) -> npt.NDArray[np.float32]:
        """The tokens' normalised weights, shape (N,), which sum to 1; empty if all weights are 0.

        `idf` replaces the idf of the training passages for the tokens that it has.
        """
        own_N = self.idf_N
        if idf is not None and len(idf):
            at_N = np.minimum(np.searchsorted(idf.ids, self.ids_N), len(idf) - 1)
            own_N = np.where(idf.ids[at_N] == self.ids_N, idf.weights[at_N], own_N)
        weights_N = own_N * self.learned_N
        total = float(weights_N.sum())
        shares: npt.NDArray[np.float32] = weights_N / total if total > 0 else np.zeros(0, dtype=np.float32)
        return shares


@dataclass(frozen=True, slots=True)
class Aligned:
    """A query token, its most similar passage token, their cosine and the weight that multiplies it."""

    token: str
    nearest: str
    weight: float
    cosine: float

    @property
    def contribution(self) -> float:
        return self.weight * self.cosine


_Made = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


class _Network(Protocol):
    def __call__(self, rows: Sequence[Sequence[int]]) -> list[_Made]:
        """Of each row of L token ids: vectors (L, H), learned corrections (L,), idf in the training passages (L,)."""
        ...


class LateInteraction:
    """Scores (query, passage) pairs. The last query's encoding is cached. It is not safe to share between threads."""

    def __init__(self, network: _Network, tokenizer: Any, scale: float, tokens: int) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`. Texts are cut after `tokens` tokens."""
        self._network = network
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens)
        self._scale = scale
        self._query: tuple[str, Read] | None = None

    def predict(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 4, idf: TermWeights | None = None
    ) -> ScoreArray:
        """One score per (query, passage), shape (n,). `idf` is the collection's idf over the backbone's vocabulary."""
        scores = np.empty(len(pairs), dtype=np.float32)
        for at in range(0, len(pairs), batch_size):
            part = pairs[at : at + batch_size]
            passages = self.read([text for _, text in part])
            for n, ((query, _), passage) in enumerate(zip(part, passages, strict=True), at):
                weights_A, _, cosine_A = self._nearest(self._of_query(query), passage, idf)
                scores[n] = weights_A @ cosine_A
        return scores

    def _of_query(self, query: str) -> Read:
        if self._query is None or self._query[0] != query:
            self._query = (query, self.read([query])[0])
        return self._query[1]

    def _nearest(
        self, asked: Read, found: Read, idf: TermWeights | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Per query token, shape (A,): its weight, the index of the most similar passage token, their cosine."""
        shares_A = asked.shares(idf)
        if not len(shares_A) or not len(found.tokens):
            nothing = np.zeros(0, dtype=np.float32)
            return nothing, np.zeros(0, dtype=np.int64), nothing
        cosine_AN = asked.vectors_NH @ found.vectors_NH.T
        at_A = cosine_AN.argmax(axis=1)
        return self._scale * shares_A, at_A, cosine_AN[np.arange(len(at_A)), at_A]

    def alignment(self, query: str, passage: str, idf: TermWeights | None = None) -> list[Aligned]:
        """The passage token matched with each query token. The contributions sum to the score."""
        asked, found = self._of_query(query), self.read([passage])[0]
        parts = zip(asked.tokens, *(item.tolist() for item in self._nearest(asked, found, idf)), strict=False)
        return [Aligned(token, found.tokens[at], weight, cosine) for token, weight, at, cosine in parts]

    def read(self, texts: Sequence[str]) -> list[Read]:
        """Encode texts, queries or passages alike, in one batch."""
        encoded = self._tokenizer.encode_batch(list(texts))
        made = self._network([item.ids for item in encoded])
        found = []
        for item, (vectors_LH, learned_L, idf_L) in zip(encoded, made, strict=True):
            own = np.flatnonzero(np.array(item.special_tokens_mask) == 0)
            names = tuple(item.tokens[n] for n in own)
            ids = np.array(item.ids, dtype=np.int64)[own]
            found.append(Read(names, ids, vectors_LH[own], learned_L[own], idf_L[own]))
        return found


def in_torch(model: str, device: str, tokens: int, *, bf16: bool = False) -> LateInteraction:
    """A late-interaction model in torch. Raises EncoderUnavailableError if it cannot be loaded."""
    import torch

    from hyblink.app.encoders.late_interaction.head import load_tokens

    module, tokenizer = load_tokens(model, device)
    scale = float(module.head.scale.detach())
    if bf16:
        module.bfloat16()

    def network(rows: Sequence[Sequence[int]]) -> list[_Made]:
        ids_BL, mask_BL = (torch.from_numpy(item).long().to(device) for item in padded(rows, 0))
        with forward_pass(torch.get_num_threads()), torch.inference_mode():
            vectors, learned, idf = (item.float().cpu().numpy() for item in module(ids_BL, mask_BL))
        return [(vectors[at, : len(row)], learned[at, : len(row)], idf[at, : len(row)]) for at, row in enumerate(rows)]

    return LateInteraction(network, tokenizer, scale, min(tokens, module.positions))


def in_onnx(model: str, settings: EncodeSettings, precision: GraphPrecision, tokens: int) -> LateInteraction:
    """A late-interaction model in ONNX Runtime, with its head in NumPy.

    Raises UnknownGraphError if no graph of its base can be built, EncoderUnavailableError if it cannot be loaded.
    """
    source = source_of(model)
    graph = graph_cache(settings).open(source, precision, "states")
    transformer = OnnxTransformer(graph, tokens_in(model, source.folder), "cls")
    head = read_arrays(Path(model).expanduser() / "model.safetensors")
    hidden = transformer.dimension
    shapes = {
        "project.weight": (hidden, hidden), "weigh.weight": (1, hidden), "weigh.bias": (1,), "scale": (),
        "idf": (len(transformer.word_vectors()),),
    }  # fmt: skip
    if any(name not in head or head[name].shape != shape for name, shape in shapes.items()):
        raise EncoderUnavailableError(
            f"cannot load the late interaction {Path(model).name!r}", expected=f"a head for {hidden} dimensions"
        )
    project_HH, weigh_H, bias = head["project.weight"].T, head["weigh.weight"][0], head["weigh.bias"][0]

    def network(rows: Sequence[Sequence[int]]) -> list[_Made]:
        found = []
        for row, states_LH in zip(rows, transformer.states(rows), strict=True):
            learned_L = np.exp(SHARPEST * np.tanh((states_LH @ weigh_H + bias) / SHARPEST))
            found.append((unit(states_LH @ project_HH), learned_L, head["idf"][np.asarray(row)]))
        return found

    tokenizer = plain_tokenizer(model)
    return LateInteraction(network, tokenizer, float(head["scale"]), min(tokens, transformer.longest))
