"""The span head of ELQ (Li et al. 2020): detects the mentions of a text and encodes them in one forward pass.

Each token has three logits: it begins a mention, it ends one, it is inside one. A span's score is
``s(i, j) = start_i + end_j + Σ_{t=i..j} mention_t`` (equation 1 there), and its probability is ``σ(s)``. Its vector is
the mean of its tokens' states, projected into the space of the entities' dense vectors. Spans consist of whole words.

Texts are read in windows of a few sentences, because heads trained on short texts miss mentions in long ones. A longer
sentence is read in overlapping windows, and each token takes its logits and state from the window in which it is
nearest to the middle. Shapes: L tokens, H hidden, D dimension, S spans.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.analysis.sentences import sentence_ends
from hyblink.app.core.budget import check_memory
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.linking import Mention, without_overlaps
from hyblink.app.encoders.dense.backbone import windows
from hyblink.app.encoders.graphs.weights import read_tensors
from hyblink.app.encoders.loading.adapters import SPAN_HEAD, WEIGHTS, adapter_manifest, adapts_passages
from hyblink.app.encoders.loading.models import identity, is_dense
from hyblink.app.encoders.loading.once import Once
from hyblink.app.encoders.runtimes.choice import default_precision
from hyblink.app.encoders.runtimes.open import open_transformer
from hyblink.app.encoders.runtimes.transformer import Transformer

DEFAULT = WEIGHTS / "elq-minilm"
HEADS = "heads.safetensors"
MAX_WIDTH = 10
"""The largest number of tokens of a span."""
_REMEMBERED_TOKENS, _REMEMBERED_SPANS = 32_768, 32_768
"""Cache sizes: token states of recent texts, in tokens, and vectors of detected spans, in spans. About 50 MB each."""
_LEAST = 1e-4
"""Spans less probable than this are never returned."""
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Offsets = tuple[tuple[int, int], ...]


def word_edges(offsets: Sequence[tuple[int, int]], text: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Two masks over the tokens: which begin a word and which end one. Offsets are in code points.

    A token boundary is inside a word if the characters on both sides are letters or digits.

    >>> [edge.tolist() for edge in word_edges([(0, 3), (3, 6), (6, 7)], "dumper!")]
    [[True, False, True], [False, True, True]]
    """

    def joint(at: int) -> bool:
        return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()

    return (
        np.array([not joint(start) for start, _ in offsets], dtype=bool),
        np.array([not joint(end) for _, end in offsets], dtype=bool),
    )


def valid_spans(begins_L: npt.NDArray[np.bool_], ends_L: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """(first tokens, last tokens) of all spans of whole words of at most `MAX_WIDTH` tokens, shape (S,) each."""
    first = np.flatnonzero(begins_L)
    pairs = [(i, j) for i in first.tolist() for j in range(i, min(i + MAX_WIDTH, len(ends_L))) if ends_L[j]]
    if not pairs:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    i, j = zip(*pairs, strict=True)
    return np.array(i, dtype=np.int64), np.array(j, dtype=np.int64)


def span_scores(logits_L3: Any, first_S: Any, last_S: Any) -> Any:
    """The spans' scores s(i, j), shape (S,), for NumPy arrays or torch tensors.

    >>> logits = np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.5]])
    >>> span_scores(logits, np.array([0, 0]), np.array([0, 1])).tolist()
    [1.5, 4.0]
    """
    within = logits_L3[:, 2].cumsum(0)
    return logits_L3[first_S, 0] + logits_L3[last_S, 1] + within[last_S] - within[first_S] + logits_L3[first_S, 2]


@dataclass(frozen=True, slots=True)
class TokenOutputs:
    """The model's output for a text: the tokens' offsets in code points, their logits and states."""

    offsets: Offsets
    logits_L3: Floats
    states_LH: Floats


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens `start:end` are read together. Only the results of `own_start:own_end` are used."""

    start: int
    end: int
    own_start: int
    own_end: int


def span_windows(ends: Sequence[int], most: int, longest: int) -> list[Window]:
    """The windows in which a text is read: whole sentences of together at most `most` tokens, but at least one.

    `ends` are the ends of the sentences, in tokens, ascending. A sentence of more than `longest` tokens is split into
    overlapping windows.

    >>> [(w.start, w.end) for w in span_windows([3, 5, 9, 10], 5, 20)]
    [(0, 5), (5, 10)]
    >>> span_windows([5], 2, 4)
    [Window(start=0, end=4, own_start=0, own_end=2), Window(start=1, end=5, own_start=2, own_end=5)]
    """
    together: list[tuple[int, int]] = []
    start = last = 0
    for end in ends:
        if end - start > most and last > start:
            together.append((start, last))
            start = last
        last = end
    if last > start:
        together.append((start, last))
    made = []
    for begin, stop in together:
        parts = [(begin + window, begin + other) for window, other in windows(stop - begin, longest)]
        cuts = [begin, *((other[0] + item[1]) // 2 for item, other in pairwise(parts)), stop]
        made += [Window(*part, *own) for part, own in zip(parts, pairwise(cuts), strict=True)]
    return made


class SpanHead:
    """A span head in `folder`, with its LoRA adapter: a `SpanDetector`, `JointDetector` and `InTextEncoder`.

    Safe to share between threads.
    """

    def __init__(
        self,
        folder: Path,
        settings: EncodeSettings,
        *,
        threshold: float,
        keep: int = 0,
        at_least: int = 0,
        window: int = 0,
    ) -> None:
        """`threshold` is the least probability of a mention.

        Per text at most the `keep` most probable mentions are returned (0: all). If fewer than `at_least` reach the
        threshold, the `at_least` most probable ones are returned. `window` is the number of tokens read together (0:
        as many as in training).
        """
        self._folder = folder
        self._settings = settings
        self._manifest = adapter_manifest(folder, SPAN_HEAD)
        self._threshold, self._keep, self._at_least = threshold, keep, at_least
        self._lock = threading.Lock()
        self._loaded = Once(self._opened, f"the span head {folder.name!r}")
        self._read: OrderedDict[str, TokenOutputs] = OrderedDict()
        self._found: OrderedDict[tuple[str, int, int], VectorArray] = OrderedDict()
        self.base = str(self._manifest["base"])
        self.tokens = int(self._manifest["config"]["query_tokens"])
        self._window = min(window or self.tokens, self.tokens) - 2
        self.id = f"elq:{identity(str(folder))}"

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors are in the space of the dense encoder with this id.

        That is the base model, or this adapter itself if it was trained together with the entities.
        """
        return is_dense(dense_id, str(self._folder) if adapts_passages(self._manifest) else self.base)

    def _opened(self) -> tuple[Transformer, dict[str, Floats]]:
        folder = str(self._folder)
        made = open_transformer(folder, self._settings, default_precision(folder, self._settings))
        return made, read_tensors(self._folder / HEADS)

    def read(self, texts: Sequence[str]) -> Iterator[TokenOutputs]:
        """The model's output for each text, in order. Recently read texts are cached.

        It is a generator, because the outputs of all texts together may not fit in memory.
        """
        with self._lock:
            known = {text: self._read[text] for text in texts if text in self._read}
        passes = self._pass([text for text in dict.fromkeys(texts) if text not in known])
        again = Counter(texts)
        for text in texts:
            again[text] -= 1
            read = known.pop(text, None)
            if read is None:
                read = next(passes)
                self._remember_text(text, read)
            if again[text]:
                known[text] = read
            yield read

    def _remember_text(self, text: str, read: TokenOutputs) -> None:
        with self._lock:
            self._read[text] = read
            while len(self._read) > 1 and sum(len(item.offsets) for item in self._read.values()) > _REMEMBERED_TOKENS:
                self._read.popitem(last=False)

    def _pass(self, texts: Sequence[str]) -> Iterator[TokenOutputs]:
        """The model's output for each text. Texts are computed together until their windows fill a batch."""
        made, heads = self._loaded()
        longest = min(self.tokens, made.longest) - 2
        waiting: list[tuple[list[int], Offsets, list[Window]]] = []
        for number, text in enumerate(texts, 1):
            ids, told = made.tokens.with_offsets(text)
            offsets = tuple(told)
            ends = sentence_ends(text, [start for start, _ in offsets])
            waiting.append((ids, offsets, span_windows(ends, min(self._window, longest), longest)))
            if number == len(texts) or sum(len(own) for *_, own in waiting) >= self._settings.batch_size:
                for (_, seen, _), states in zip(waiting, self._states(waiting), strict=True):
                    yield TokenOutputs(seen, states @ heads["weight"].T + heads["bias"], states)
                waiting = []

    def _states(self, texts: Sequence[tuple[list[int], Offsets, list[Window]]]) -> list[Floats]:
        made, heads = self._loaded()
        hidden = heads["projection"].shape[1]
        check_memory(sum(len(ids) for ids, _, _ in texts) * hidden * 4)
        states = [np.zeros((len(ids), hidden), dtype=np.float32) for ids, _, _ in texts]
        parts = [(at, window) for at, (_, _, own) in enumerate(texts) for window in own]
        parts.sort(key=lambda part: part[1].start - part[1].end)  # longest first, so that batches have similar lengths
        for first in range(0, len(parts), self._settings.batch_size):
            some = parts[first : first + self._settings.batch_size]
            rows = [made.tokens.row(texts[at][0][window.start : window.end]) for at, window in some]
            for (at, window), own in zip(some, made.states(rows), strict=True):
                shift = 1 - window.start  # behind [CLS]
                mine = own[window.own_start + shift : window.own_end + shift]
                states[at][window.own_start : window.own_end] = mine
        return states

    def detect(self, texts: Sequence[str]) -> list[list[Mention]]:
        """The mentions of each text without overlaps: spans whose probability ``σ(s)`` reaches the threshold.

        `keep` and `at_least` limit their number; see the constructor.
        """
        floor = min(_LEAST, self._threshold) if self._at_least else self._threshold
        return [self._kept(found) for found in self.possible(texts, floor)]

    def _kept(self, found: list[Mention]) -> list[Mention]:
        """Select mentions without overlaps: all that reach the threshold or the `at_least` best, at most `keep`."""
        separate = [
            found[at]
            for at in without_overlaps(
                [(result.start, result.end) for result in found], [result.score for result in found]
            )
        ]
        surest = sorted(separate, key=lambda item: -item.score)
        passing = sum(item.score >= self._threshold for item in surest)
        count = max(passing, self._at_least)
        kept = surest[: min(count, self._keep) if self._keep else count]
        return sorted(kept, key=lambda item: item.start)

    def possible(self, texts: Sequence[str], floor: float) -> list[list[Mention]]:
        """All spans of each text whose probability ``σ(s)`` is at least `floor`, overlapping ones included."""
        return [self._spans(text, read, floor) for text, read in zip(texts, self.read(texts), strict=True)]

    def _spans(self, text: str, read: TokenOutputs, floor: float) -> list[Mention]:
        first, last = valid_spans(*word_edges(read.offsets, text))
        if not len(first):
            return []
        score = span_scores(read.logits_L3, first, last)
        probability = 1.0 / (1.0 + np.exp(-np.clip(score, -60, 60)))
        found = []
        for place in np.flatnonzero(probability >= floor).tolist():
            start, end = read.offsets[first[place]][0], read.offsets[last[place]][1]
            found.append(Mention(start, end, text[start:end], "elq", float(probability[place])))
        if floor > _LEAST:
            self._remember(text, read, found)
        return found

    def _remember(self, text: str, read: TokenOutputs, found: Sequence[Mention]) -> None:
        """Cache the vectors of detected spans, which `encode_spans` needs next, longer than the tokens' states."""
        vectors = [self._vector(read, result.start, result.end) for result in found[:_REMEMBERED_SPANS]]
        with self._lock:
            for result, vector in zip(found, vectors, strict=False):
                self._found[text, result.start, result.end] = vector
            while len(self._found) > _REMEMBERED_SPANS:
                self._found.popitem(last=False)

    def _vector(self, read: TokenOutputs, start: int, end: int) -> VectorArray:
        _, heads = self._loaded()
        first = bisect_right(read.offsets, start, key=lambda offset: offset[1])
        last = bisect_left(read.offsets, end, key=lambda offset: offset[0])
        if last <= first:
            return np.zeros(heads["projection"].shape[0], dtype=np.float32)
        vector = heads["projection"] @ read.states_LH[first:last].mean(axis=0)
        made: VectorArray = vector / max(float(np.linalg.norm(vector)), 1e-6)
        return made

    def encode_spans(self, items: Sequence[tuple[str, int, int]]) -> VectorArray:
        """The vectors of spans (text, start, end), shape (n, D). Each text is read once for all its spans."""
        with self._lock:
            known = {item: self._found[item] for item in items if item in self._found}
        wanted: dict[str, list[tuple[str, int, int]]] = {}
        for item in items:
            if item not in known:
                wanted.setdefault(item[0], []).append(item)
        for own, read in zip(wanted.values(), self.read(list(wanted)), strict=True):
            known |= {item: self._vector(read, item[1], item[2]) for item in own}
        if not items:
            return np.zeros((0, self._loaded()[1]["projection"].shape[0]), dtype=np.float32)
        return np.stack([known[item] for item in items])
