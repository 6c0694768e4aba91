"""The VDR head: projects token states onto the vocabulary (Zhou et al. 2024), as a sentence-transformers module.

The paper's encoder is ``v = pool_L(elu1p(LN(h) · Eᵀ))`` with the tied input embeddings E. This head adds, each by its
own setting: a layer and a projection between h and E, a residual path from the token's own embedding, an output bias,
and a **lexical** part that weights a text's own tokens. Its weight is BM25's saturation (Robertson & Zaragoza 2009)
times a learned contextual correction (as in uniCOIL, Lin & Ma 2021). An untrained lexical part is BM25 over tokens, so
training starts from BM25.

Shapes: B texts, L tokens, H hidden, V vocabulary entries from `shift` on.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import Module, Router, Transformer
from torch import nn

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.loading.safety import refuse_unsafe
from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer
from hyblink.app.encoders.vdr.folders import module_folders
from hyblink.app.encoders.vdr.inference import LARGEST_CORRECTION

_START_GAIN, _START_BIAS = 10.0, -9.0
"""Initial values for unit-length embeddings: a token's own entry has weight 2, one with cosine .5 has e⁻⁴."""
Pooling = Literal["max", "mean", "top_mean"]
BM25_K1, BM25_B = 1.2, 0.75


def elu1p(logits: torch.Tensor) -> torch.Tensor:
    """ELU(x) + 1: positive, linear for x ≥ 0, with a positive gradient everywhere.

    >>> elu1p(torch.tensor([0.0, 2.0])).tolist()
    [1.0, 3.0]
    """
    return nn.functional.elu(logits) + 1


class MaxLogits(torch.autograd.Function):  # type: ignore[misc]
    """``max_L(x · Eᵀ)``, shape (B, V), without a (B, L, V) tensor in memory. Gradients flow to the maxima only."""

    @staticmethod
    def forward(ctx: Any, x_BLH: torch.Tensor, E_VH: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        batch, vocabulary = x_BLH.shape[0], E_VH.shape[0]
        values_BV = x_BLH.new_empty(batch, vocabulary)
        places_BV = torch.empty(batch, vocabulary, dtype=torch.int64, device=x_BLH.device)
        for b in range(batch):
            at = mask_BL[b].nonzero()[:, 0]
            values_BV[b], found = (x_BLH[b, at] @ E_VH.T).max(dim=0)
            places_BV[b] = at[found]
        ctx.save_for_backward(x_BLH, E_VH, places_BV)
        return values_BV

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        (gradient_BV,) = gradients
        x_BLH, E_VH, places_BV = ctx.saved_tensors
        to_x = torch.zeros_like(x_BLH) if ctx.needs_input_grad[0] else None
        to_E = torch.zeros_like(E_VH) if ctx.needs_input_grad[1] else None
        for b in range(len(gradient_BV)):
            at = gradient_BV[b].nonzero()[:, 0]
            share_N1 = gradient_BV[b, at, None]
            if to_x is not None:
                to_x[b].index_add_(0, places_BV[b, at], share_N1 * E_VH[at])
            if to_E is not None:
                to_E[at] += share_N1 * x_BLH[b, places_BV[b, at]]
        return to_x, to_E, None


_MOST = {"vocabulary": 4_000_000, "hidden": 16_384, "layers": 64, "heads": 256, "intermediate": 65_536}


class VdrHead(Module):  # type: ignore[misc]
    """Maps a transformer's token states to weights over the vocabulary.

    It reads the features `token_embeddings`, `attention_mask` and `input_ids`. It writes `sentence_embedding` (B, whole
    vocabulary; only the `top_k` largest weights and the text's own tokens), `vocabulary_embedding` (B, V; unpruned) and
    `bag` (B, V; 1 for tokens of the text). `task` is "query" for queries; any other value means passages.
    """

    config_keys: list[str] = [  # noqa: RUF012
        "vocabulary", "hidden", "shift", "layers", "heads", "intermediate", "pooling", "pool_k", "project", "own_path",
        "semantic", "lexical", "top_k", "keep_own", "normalize", "tied_norm",
    ]  # fmt: skip
    forward_kwargs: set[str] = {"task"}  # noqa: RUF012
    config_file_name = "config.json"

    def __init__(
        self,
        vocabulary: int,
        hidden: int,
        *,
        shift: int = 0,
        layers: int = 0,
        heads: int = 12,
        intermediate: int = 1536,
        pooling: Pooling = "max",
        pool_k: int = 4,
        project: bool = False,
        own_path: bool = False,
        semantic: bool = True,
        lexical: bool = False,
        top_k: int = 768,
        keep_own: bool = True,
        normalize: bool = False,
        tied_norm: bool = False,
    ) -> None:
        super().__init__()
        if not (semantic or lexical):
            raise ValueError("a VDR head needs a semantic part, a lexical part, or both")
        if pooling not in {"max", "mean", "top_mean"}:
            raise ValueError(f"unknown pooling: received {pooling!r}; expected max, mean or top_mean")
        sizes = {
            "vocabulary": vocabulary,
            "hidden": hidden,
            "layers": layers,
            "heads": heads,
            "intermediate": intermediate,
        }
        for name, most in _MOST.items():
            if not isinstance(sizes[name], int) or not 0 <= sizes[name] <= most:
                raise ValueError(f"{name} is out of range: received {sizes[name]!r}; expected 0 to {most}")
        if not 0 <= shift < vocabulary:
            raise ValueError(f"bad shift: received {shift}; expected 0 to {vocabulary - 1}")
        self.vocabulary, self.hidden, self.shift = vocabulary, hidden, shift
        self.layers, self.heads, self.intermediate = layers, heads, intermediate
        self.pooling, self.pool_k = pooling, pool_k
        self.project, self.own_path, self.semantic, self.lexical = project, own_path, semantic, lexical
        self.top_k, self.keep_own, self.normalize, self.tied_norm = top_k, keep_own, normalize, tied_norm
        size = vocabulary - shift
        if layers:
            block = nn.TransformerEncoderLayer(
                hidden, heads, intermediate, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(hidden)
        if semantic:
            self.out_bias = nn.Parameter(torch.zeros(size))
            if project:
                self.projection = nn.Linear(hidden, hidden, bias=False)
            if own_path:
                self.own_gain = nn.Parameter(torch.tensor(1.0))
        if lexical:
            self.impact = nn.Linear(hidden, 2)  # outputs: correction for queries, for passages
            nn.init.zeros_(self.impact.weight)
            nn.init.zeros_(self.impact.bias)
            self.idf = nn.Parameter(torch.ones(size))
            self.curve = nn.Parameter(torch.tensor([math.log(BM25_K1), math.log(BM25_B / (1 - BM25_B))]))
            self.register_buffer("mean_length", torch.tensor(100.0))
        self.register_buffer("usable", torch.ones(size, dtype=torch.bool))
        self._tied: list[nn.Embedding] = []  # in a list, so that torch does not register it as a submodule
        self._unit_VH: torch.Tensor | None = None

    def start(self) -> None:
        """Initialise for training: only the path from the token's own embedding is active, the projection is zero.

        It has an effect only with `semantic`, `project` and `own_path`.
        """
        if self.semantic and self.project and self.own_path:
            with torch.no_grad():
                self.projection.weight.zero_()
                self.own_gain.fill_(_START_GAIN if self.tied_norm else 1.0)
                self.out_bias.fill_(_START_BIAS if self.tied_norm else 0.0)

    def tie(self, embeddings: nn.Embedding) -> None:
        """Use the transformer's input embeddings, shape (whole vocabulary, H), as output matrix. They are not copied.

        Raises ValueError if the shape does not fit.
        """
        if embeddings.weight.shape != (self.vocabulary, self.hidden):
            raise ValueError(
                f"the embeddings do not fit: received {tuple(embeddings.weight.shape)}; "
                f"expected {(self.vocabulary, self.hidden)}"
            )
        self._tied = [embeddings]
        self._unit_VH = None

    def on_model_ready(self, model: Any) -> None:
        """A hook that sentence-transformers calls when the model is assembled. It ties the embeddings."""
        (own,) = [tower[0] for tower in towers(model) if tower[1] is self][:1]
        self.tie(own.model.get_input_embeddings())

    def _embeddings(self) -> torch.Tensor:
        """The output matrix E, shape (V, H). With `tied_norm` its rows are L2-normalised."""
        if not self._tied:
            raise RuntimeError("the VDR head is not tied to a transformer's embeddings")
        weight_VH = self._tied[0].weight[self.shift :]
        if not self.tied_norm:
            return weight_VH
        if weight_VH.requires_grad:
            return nn.functional.normalize(weight_VH, dim=-1)
        unit_VH = self._unit_VH
        if unit_VH is None or unit_VH.device != weight_VH.device:
            unit_VH = self._unit_VH = nn.functional.normalize(weight_VH, dim=-1)
        return unit_VH

    def _states(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        states_BLH = features["token_embeddings"].to(self.norm.weight.dtype)
        if self.layers:
            states_BLH = self.blocks(states_BLH, src_key_padding_mask=features["attention_mask"] == 0)
        return cast("torch.Tensor", self.norm(states_BLH))

    def _semantic(
        self, states_BLH: torch.Tensor, ids_BL: torch.Tensor, mask_BL: torch.Tensor, columns: torch.Tensor | None
    ) -> torch.Tensor:
        E_VH, bias_V = self._embeddings(), self.out_bias
        if columns is not None:
            E_VH, bias_V = E_VH[columns], bias_V[columns]
        x_BLH = self.projection(states_BLH) if self.project else states_BLH
        if self.own_path:
            whole = self._tied[0].weight if self._tied else E_VH
            own_BLH = nn.functional.embedding(ids_BL, whole)
            x_BLH = x_BLH + self.own_gain * (nn.functional.normalize(own_BLH, dim=-1) if self.tied_norm else own_BLH)
        if self.pooling == "max":  # elu1p is increasing, so the largest logit gives the largest weight
            if torch.compiler.is_exporting():  # an exported graph cannot loop over a batch of variable size
                outside_BL1 = (mask_BL == 0)[:, :, None]
                logits_BV = (x_BLH @ E_VH.to(x_BLH.dtype).T).masked_fill(outside_BL1, -torch.inf).amax(dim=1)
            else:
                logits_BV = cast("torch.Tensor", MaxLogits.apply(x_BLH, E_VH.to(x_BLH.dtype), mask_BL))
            return elu1p(logits_BV + bias_V)
        weights_BLV = elu1p(x_BLH @ E_VH.T + bias_V) * mask_BL[:, :, None]
        if self.pooling == "mean":
            return weights_BLV.sum(1) / mask_BL.sum(1, keepdim=True)
        best = weights_BLV.topk(min(self.pool_k, weights_BLV.shape[1]), dim=1).values
        return best.sum(1) / mask_BL.sum(1, keepdim=True).clamp(max=self.pool_k)

    def _counts(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """The term frequency of each vocabulary entry in the text, shape (B, V); 0 for unusable tokens."""
        counts = torch.zeros(
            ids_BL.shape[0], self.vocabulary, device=ids_BL.device
        )  # not len(): keeps the batch size dynamic in the export
        counts.scatter_add_(1, ids_BL, mask_BL.to(counts.dtype))
        return counts[:, self.shift :] * self.usable

    def _lexical(
        self,
        states_BLH: torch.Tensor,
        ids_BL: torch.Tensor,
        mask_BL: torch.Tensor,
        counts_BV: torch.Tensor,
        query: bool,
    ) -> torch.Tensor:
        """The weights of the text's own tokens, shape (B, V).

        For a query they are the exponentiated correction, for a passage idf times BM25's saturation times that.
        """
        said_BL = self.impact(states_BLH)[:, :, 0 if query else 1]
        at_BL = (ids_BL - self.shift).clamp(min=0)
        inside_BL = (mask_BL > 0) & (ids_BL >= self.shift)
        total_BV = torch.zeros_like(counts_BV).to(said_BL.dtype)
        total_BV = total_BV.scatter_add(1, at_BL, said_BL * inside_BL)
        mean_BV = total_BV / counts_BV.clamp(min=1)
        correction_BV = torch.exp(LARGEST_CORRECTION * torch.tanh(mean_BV / LARGEST_CORRECTION))
        present_BV = (counts_BV > 0).to(correction_BV.dtype)
        if query:
            return present_BV * correction_BV
        k1, b = self.curve[0].exp(), self.curve[1].sigmoid()
        length_B1 = counts_BV.sum(1, keepdim=True)
        saturated_BV = counts_BV * (k1 + 1) / (counts_BV + k1 * (1 - b + b * length_B1 / self.mean_length))
        return present_BV * nn.functional.relu(self.idf) * saturated_BV * correction_BV

    def embed(
        self, features: dict[str, Any], task: str | None = None, columns: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(weights, bag), each (B, V), unpruned. `columns` limits the computation to some vocabulary entries.

        Training uses that: a dot product with a sparse query needs only the query's columns.
        """
        ids_BL, mask_BL = features["input_ids"], features["attention_mask"]
        states_BLH = self._states(features)
        counts_BV = self._counts(ids_BL, mask_BL)
        usable_V = self.usable if columns is None else self.usable[columns]
        some: Any = slice(None) if columns is None else columns
        weights_BV = torch.zeros_like(counts_BV[:, some])
        if self.semantic:
            weights_BV = self._semantic(states_BLH, ids_BL, mask_BL, columns) * usable_V
        if self.lexical:
            own_BV = self._lexical(states_BLH, ids_BL, mask_BL, counts_BV, task == "query")
            weights_BV = weights_BV + own_BV[:, some]
        if self.normalize:
            weights_BV = nn.functional.normalize(weights_BV, dim=-1)
        return weights_BV, (counts_BV[:, some] > 0).to(weights_BV.dtype)

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        weights_BV, bag_BV = self.embed(features, task)
        features["vocabulary_embedding"], features["bag"] = weights_BV, bag_BV
        kept_BV = weights_BV * sparse_mask(weights_BV, bag_BV, self.top_k, keep_own=self.keep_own)
        features["sentence_embedding"] = nn.functional.pad(kept_BV, (self.shift, 0))
        return features

    def get_embedding_dimension(self) -> int:
        """The size of the whole vocabulary, including the entries before `shift`."""
        return self.vocabulary

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:  # noqa: ARG002
        """Write `config.json` and `model.safetensors`."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> VdrHead:
        """Load a head that `save` wrote. Only safetensors are read, and no memory is used beyond the file's weights.

        Raises RuntimeError if the weights do not fit the configuration, FileNotFoundError if there are none.
        """
        config = cls.load_config(model_name_or_path, **kwargs)
        path = cls.load_file_path(model_name_or_path, "model.safetensors", **kwargs)
        if path is None:
            raise FileNotFoundError(f"no model.safetensors in {model_name_or_path}")
        with torch.device("meta"):
            head = cls(**config)
        head.load_state_dict(load_file(path), strict=True, assign=True)
        return head


def sparse_mask(weights_BV: torch.Tensor, bag_BV: torch.Tensor, top_k: int, *, keep_own: bool = True) -> torch.Tensor:
    """A mask, shape (B, V): 1 for the `top_k` largest weights of each row and, with `keep_own`, the text's own tokens.

    A negative `top_k` keeps all.
    """
    if top_k < 0 or top_k >= weights_BV.shape[1]:
        return torch.ones_like(weights_BV)
    mask_BV = torch.zeros_like(weights_BV)
    if top_k:
        mask_BV.scatter_(1, weights_BV.topk(top_k, dim=1).indices, 1.0)
    return torch.maximum(mask_BV, bag_BV) if keep_own else mask_BV


def towers(encoder: SparseEncoder) -> tuple[tuple[Any, VdrHead], tuple[Any, VdrHead]]:
    """((transformer, head) of queries, (transformer, head) of passages). They are equal if the tower is shared."""
    if isinstance(encoder[0], Router):
        routes = encoder[0].sub_modules
        return tuple(routes["query"]), tuple(routes["document"])
    return (encoder[0], encoder[1]), (encoder[0], encoder[1])


def load_encoder(folder: Path, device: str = "cpu") -> SparseEncoder:
    """Load a SparseEncoder with a VDR head from a folder. Code in the folder is never run.

    Raises EncoderUnavailableError if it is not a transformer followed by a VDR head, or a Router of two such towers.
    """
    refuse_unsafe(folder)
    found = module_folders(folder)
    loaded = {}
    for own in dict.fromkeys(found.values()):
        transformer = Transformer.load(str(folder), subfolder=own[0], model_kwargs={"use_safetensors": True})
        loaded[own] = [transformer, VdrHead.load(str(folder), subfolder=own[1], local_files_only=True)]
    if len(loaded) == 1:
        modules = loaded[found["query"]]
    else:
        vocabularies = [transformer.tokenizer.get_vocab() for transformer, _ in loaded.values()]
        if vocabularies[0] != vocabularies[1] or len({head.shift for _, head in loaded.values()}) > 1:
            raise EncoderUnavailableError(
                "the towers have different vocabularies",
                received=[len(vocabulary) for vocabulary in vocabularies],
                expected="one",
            )
        modules = [Router.for_query_document(loaded[found["query"]], loaded[found["document"]])]
    return SparseEncoder(modules=modules, device=device, similarity_fn_name="dot")


class _States:
    """Adapts the transformer of a SparseEncoder to what `TorchTransformer` expects of a model."""

    def __init__(self, transformer: Any, device: str) -> None:
        self._transformer = transformer.to(device).eval()
        self.tokenizer = transformer.tokenizer
        self.device = torch.device(device)

    def __getitem__(self, at: int) -> Any:
        return (self._transformer,)[at]

    def __call__(self, features: dict[str, Any]) -> dict[str, Any]:
        made = dict(self._transformer(features))
        made["sentence_embedding"] = made["token_embeddings"][:, 0]  # a placeholder: there is no dense vector
        return made


def tower_in_torch(folder: Path, device: str) -> TorchTransformer:
    """The transformer in a folder, for a head on its states."""
    transformer = Transformer.load(str(folder), model_kwargs={"use_safetensors": True})
    return TorchTransformer(_States(transformer, device))


def disentangle(model: SparseEncoder, text: str, top_k: int = 32, *, query: bool = True) -> list[tuple[str, float]]:
    """The `top_k` tokens with the largest weights in a text's sparse vector, as (token, weight), largest first.

    With `query=False` the text is encoded as a passage.
    """
    made = model.encode_query(text) if query else model.encode_document(text)
    found: list[tuple[str, float]] = model.decode(made, top_k=top_k)
    return found


def explain(model: SparseEncoder, query: str, passage: str) -> list[TokenContribution]:
    """Each token's contribution to the score of a query and a passage, largest first. They sum to the dot product."""
    asked, found = (
        torch.as_tensor(item).to_dense().cpu() for item in (model.encode_query(query), model.encode_document(passage))
    )
    both = torch.nonzero(asked * found)[:, 0].tolist()
    names = model.tokenizer.convert_ids_to_tokens(both)
    lines = [
        TokenContribution(name, float(asked[at] * found[at]), float(asked[at]), float(found[at]))
        for name, at in zip(names, both, strict=True)
    ]
    return sorted(lines, key=lambda line: -line.contribution)
