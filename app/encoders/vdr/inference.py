"""The VDR head in NumPy, for encoding. `head.py` has the formulas, and trains it in torch.

Each text is computed by itself, without padding. The lexical part alone never makes a vector over the vocabulary.
Shapes: L tokens, H hidden, V vocabulary entries from `shift` on, N own entries of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.core.budget import forward_pass
from hyblink.app.core.errors import CorruptionError, EncoderUnavailableError
from hyblink.app.core.manifest import read_json
from hyblink.app.core.types.arrays import ScoreArray, TermWeights
from hyblink.app.core.weights import heaviest
from hyblink.app.encoders.dense.backbone import TextStates
from hyblink.app.encoders.graphs.cache import threads
from hyblink.app.encoders.graphs.parts import Floats, Layer, Linear, Norm
from hyblink.app.encoders.graphs.weights import read_arrays
from hyblink.app.encoders.runtimes.onnx_transformer import unit

QUERY_TOP_K = 256
"""The number of weights kept of an encoded query. Searches prune it much further."""
LARGEST_CORRECTION = 2.0
"""The bound of learned corrections: they multiply a token's weight by e⁻² to e²."""
_OF_TRAINING = {"top_k", "keep_own"}
"""Settings that only the head in torch reads."""
_EPSILON = 1e-5


def elu1p(logits: Floats) -> Floats:
    """ELU(x) + 1: positive, linear for x ≥ 0.

    >>> elu1p(np.array([0.0, 2.0], dtype=np.float32)).tolist()
    [1.0, 3.0]
    """
    made: Floats = np.where(logits > 0, logits + 1, np.exp(np.minimum(logits, 0)))
    return made


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The settings of a head, as `config.json` has them."""

    vocabulary: int
    hidden: int
    shift: int = 0
    layers: int = 0
    heads: int = 12
    intermediate: int = 1536
    pooling: str = "max"
    pool_k: int = 4
    project: bool = False
    own_path: bool = False
    semantic: bool = True
    lexical: bool = False
    normalize: bool = False
    tied_norm: bool = False


class VdrInference:
    """A VDR head in `folder` for the states of a model with these word vectors. Safe to share between threads."""

    def __init__(self, folder: Path, words: Floats, *, passage_weights: int, calibrated: bool = True) -> None:
        """`passage_weights` is the number of weights kept of a passage. Without `calibrated` there is no prior idf.

        Raises EncoderUnavailableError if the head is damaged or does not fit the word vectors.
        """
        self._words = words
        self._passage_weights = passage_weights
        self._calibrated = calibrated
        try:
            config = read_json(folder / "config.json")
            self.config = HeadConfig(**{name: config[name] for name in config.keys() - _OF_TRAINING})
            self._tensors = read_arrays(folder / "model.safetensors")
            self._check()
        except (OSError, CorruptionError, TypeError, ValueError, KeyError) as error:
            raise EncoderUnavailableError(f"cannot load the VDR head {folder.name!r}: {error}") from error

    def _check(self) -> None:
        config, size = self.config, self.config.vocabulary - self.config.shift
        if self._words.shape != (config.vocabulary, config.hidden):
            raise ValueError(
                f"the embeddings do not fit: received {self._words.shape}; "
                f"expected {(config.vocabulary, config.hidden)}"
            )
        hidden, wide = config.hidden, config.intermediate
        expected: dict[str, tuple[int, ...]] = {"norm.weight": (hidden,), "norm.bias": (hidden,), "usable": (size,)}
        if config.lexical:
            expected |= {"impact.weight": (2, hidden), "impact.bias": (2,)}
            expected |= {"idf": (size,), "curve": (2,), "mean_length": ()}
        if config.semantic:
            expected["out_bias"] = (size,)
            if config.project:
                expected["projection.weight"] = (hidden, hidden)
            if config.own_path:
                expected["own_gain"] = ()
        for number in range(config.layers):
            layer = {
                "self_attn.in_proj_weight": (3 * hidden, hidden), "self_attn.in_proj_bias": (3 * hidden,),
                "self_attn.out_proj.weight": (hidden, hidden), "self_attn.out_proj.bias": (hidden,),
                "linear1.weight": (wide, hidden), "linear1.bias": (wide,),
                "linear2.weight": (hidden, wide), "linear2.bias": (hidden,),
                **{f"norm{n}.{part}": (hidden,) for n in (1, 2) for part in ("weight", "bias")},
            }  # fmt: skip
            expected |= {f"blocks.layers.{number}.{name}": shape for name, shape in layer.items()}
        received = {name: values.shape for name, values in self._tensors.items()}
        wrong = sorted(name for name in {*expected, *received} if expected.get(name) != received.get(name))
        if wrong:
            name = wrong[0]
            raise ValueError(f"{name} does not fit: received {received.get(name)}; expected {expected.get(name)}")

    def _float(self, name: str) -> Floats:
        made: Floats = np.asarray(self._tensors[name], dtype=np.float32)
        return made

    @cached_property
    def _usable(self) -> npt.NDArray[np.bool_]:
        return self._tensors["usable"].astype(bool)

    @cached_property
    def _blocks(self) -> Any:
        """The session of the layers between states and head."""
        import onnxruntime

        from hyblink.app.encoders.graphs.pre_norm import pre_norm_graph

        model = pre_norm_graph([self._layer(number) for number in range(self.config.layers)], self.config.heads)
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def _layer(self, number: int) -> Layer:
        at = f"blocks.layers.{number}"
        three = zip(
            np.split(self._float(f"{at}.self_attn.in_proj_weight"), 3),
            np.split(self._float(f"{at}.self_attn.in_proj_bias"), 3),
            strict=True,
        )
        query, key, value = (Linear(np.ascontiguousarray(weight.T), bias) for weight, bias in three)

        def linear(name: str) -> Linear:
            return Linear(np.ascontiguousarray(self._float(f"{at}.{name}.weight").T), self._float(f"{at}.{name}.bias"))

        def norm(name: str) -> Norm:
            return Norm(self._float(f"{at}.{name}.weight"), self._float(f"{at}.{name}.bias"))

        return Layer(
            query, key, value, linear("self_attn.out_proj"), norm("norm1"), linear("linear1"), linear("linear2"),
            norm("norm2"),
        )  # fmt: skip

    def _normed(self, states_LH: Floats) -> Floats:
        if self.config.layers:
            given = {"states": states_LH[None], "attention_mask": np.ones((1, len(states_LH)), dtype=np.int32)}
            states_LH = self._blocks.run(None, given)[0][0]
        centred = states_LH - states_LH.mean(axis=1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + _EPSILON)
        made: Floats = centred / scale * self._float("norm.weight") + self._float("norm.bias")
        return made

    @cached_property
    def _output_VH(self) -> Floats:
        """The output matrix: the word vectors from `shift` on, L2-normalised with `tied_norm`."""
        weight = np.asarray(self._words[self.config.shift :])
        if not self.config.tied_norm:
            return weight
        return unit(weight)

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf of tokens in a calibrated lexical part, parallel to `ids`; None if there is none."""
        if not (self.config.lexical and self._calibrated):
            return None
        prior: ScoreArray = self._float("idf")[np.maximum(ids - self.config.shift, 0)]
        return prior

    def weights(self, texts: Sequence[TextStates], *, query: bool) -> list[TermWeights]:
        """The sparse vectors of texts, pruned to the largest weights and those of each text's own tokens.

        A query keeps at most `QUERY_TOP_K` weights, a passage `passage_weights`, or all its own tokens if these are
        more.
        """
        limit = QUERY_TOP_K if query else self._passage_weights
        made = []
        for text in texts:
            with forward_pass(threads()):
                made.append(self._weights(text, query, limit))
        return made

    def _weights(self, text: TextStates, query: bool, limit: int) -> TermWeights:
        config = self.config
        states_LH = self._normed(np.asarray(text.states_LH, dtype=np.float32))
        own_N, counts_N = self._own(text.ids_L)
        lexical_N = self._lexical(states_LH, text.ids_L, own_N, counts_N, query) if config.lexical else None
        if not config.semantic:
            assert lexical_N is not None
            if config.normalize:
                lexical_N = unit(lexical_N)
            made = TermWeights((own_N + config.shift).astype(np.int32), lexical_N.astype(np.float32))
            return heaviest(made, len(made))
        weights_V = self._semantic(states_LH, text.ids_L) * self._usable
        if lexical_N is not None:
            weights_V[own_N] += lexical_N
        if config.normalize:
            weights_V = unit(weights_V)
        kept = own_N
        rest = min(limit, len(weights_V)) - len(own_N)
        if rest > 0:
            others_V = weights_V.copy()
            others_V[own_N] = -np.inf
            kept = np.concatenate([own_N, np.argpartition(-others_V, rest - 1)[:rest]])
            kept.sort()
        made = TermWeights((kept + config.shift).astype(np.int32), weights_V[kept])
        return heaviest(made, len(made))

    def _own(self, ids_L: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], Floats]:
        """(the usable entries that the text has, ascending; how often it has each), shape (N,) each."""
        places = ids_L.astype(np.int64) - self.config.shift
        places = places[places >= 0]
        own, counts = np.unique(places[self._usable[places]], return_counts=True)
        return own, counts.astype(np.float32)

    def _lexical(
        self,
        states_LH: Floats,
        ids_L: npt.NDArray[np.int32],
        own_N: npt.NDArray[np.int64],
        counts_N: Floats,
        query: bool,
    ) -> Floats:
        """The weights of the text's own tokens, shape (N,): see `VdrHead`."""
        column = 0 if query else 1
        said_L = states_LH @ self._float("impact.weight")[column] + self._float("impact.bias")[column]
        places_L = ids_L.astype(np.int64) - self.config.shift
        slot_L = np.minimum(np.searchsorted(own_N, places_L), max(len(own_N) - 1, 0))
        mine_L = own_N[slot_L] == places_L if len(own_N) else np.zeros(len(places_L), dtype=bool)
        total_N = np.bincount(slot_L[mine_L], weights=said_L[mine_L], minlength=len(own_N)).astype(np.float32)
        correction_N = np.exp(LARGEST_CORRECTION * np.tanh(total_N / counts_N / LARGEST_CORRECTION))
        if query:
            asked: Floats = correction_N
            return asked
        curve = self._float("curve")
        k1, b = np.exp(curve[0]), 1 / (1 + np.exp(-curve[1]))
        length = counts_N.sum() / float(self._float("mean_length"))
        saturated_N = counts_N * (k1 + 1) / (counts_N + k1 * (1 - b + b * length))
        made: Floats = np.maximum(self._float("idf")[own_N], 0) * saturated_N * correction_N
        return made

    def _semantic(self, states_LH: Floats, ids_L: npt.NDArray[np.int32]) -> Floats:
        config, output_VH, bias_V = self.config, self._output_VH, self._float("out_bias")
        x_LH = states_LH
        if config.project:
            x_LH = states_LH @ self._float("projection.weight").T
        if config.own_path:
            own_LH = np.asarray(self._words[ids_L])
            if config.tied_norm:
                own_LH = unit(own_LH)
            x_LH = x_LH + float(self._float("own_gain")) * own_LH
        if config.pooling == "max":  # elu1p is increasing, so the largest logit gives the largest weight
            return elu1p((x_LH @ output_VH.T).max(axis=0) + bias_V)
        weights_LV = elu1p(x_LH @ output_VH.T + bias_V)
        if config.pooling == "mean":
            made: Floats = weights_LV.mean(axis=0)
            return made
        k = min(config.pool_k, len(weights_LV))
        best: Floats = np.partition(weights_LV, len(weights_LV) - k, axis=0)[-k:].mean(axis=0)
        return best
