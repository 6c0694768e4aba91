"""ELQ's heads (Li et al. 2020): mentions of a text, and their vectors, in one pass.

Each token has three logits: it begins a mention, it ends one, it is within one. A span's score is
``s(i, j) = start_i + end_j + Σ_{t=i..j} mention_t`` (equation 1 there), its probability ``σ(s)``; its vector is the
mean of its tokens' states, projected into the space of the entities' dense vectors, which stay. Spans are whole words.

Long texts are read in overlapping windows; a token's logits and state are those of the window in whose middle it stands
best. Shapes: L tokens, H hidden, D dimension, S spans.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.core.linking import Mention, apart
from app.core.settings import EncodeSettings
from app.core.types import VectorArray
from app.encoders.adapters import SPAN_HEAD, WEIGHTS, adapter_manifest, adapts_passages, merge_lora
from app.encoders.backbone import owners, windows
from app.encoders.dense import device_of, load_sentence_transformer
from app.encoders.models import identity, is_dense

DEFAULT = WEIGHTS / "elq-minilm"
HEADS = "heads.safetensors"
MAX_WIDTH = 10
"""Tokens of a span at most."""
_REMEMBERED = 32
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def word_edges(offsets: Sequence[tuple[int, int]], text: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which tokens begin and which end a word: no letter, digit or mark stands against them in the text.

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
    """First and last tokens of all spans of whole words, at most `MAX_WIDTH` wide, shape (S,) each."""
    first = np.flatnonzero(begins_L)
    pairs = [(i, j) for i in first.tolist() for j in range(i, min(i + MAX_WIDTH, len(ends_L))) if ends_L[j]]
    if not pairs:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    i, j = zip(*pairs, strict=True)
    return np.array(i, dtype=np.int64), np.array(j, dtype=np.int64)


def span_scores(logits_L3: Any, first_S: Any, last_S: Any) -> Any:
    """Every span's score, shape (S,); works on arrays and on tensors.

    >>> logits = np.array([[1.0, 0.0, 0.5], [0.0, 2.0, 0.5]])
    >>> span_scores(logits, np.array([0, 0]), np.array([0, 1])).tolist()
    [1.5, 4.0]
    """
    within = logits_L3[:, 2].cumsum(0)
    return logits_L3[first_S, 0] + logits_L3[last_S, 1] + within[last_S] - within[first_S] + logits_L3[first_S, 2]


@dataclass(frozen=True, slots=True)
class ReadText:
    """A text as the heads see it."""

    offsets: tuple[tuple[int, int], ...]
    logits_L3: Floats
    states_LH: Floats


class SpanHead:
    """A span head in `folder`, with the LoRA adapter that it was trained with. Safe to share between threads."""

    def __init__(self, folder: Path, settings: EncodeSettings, *, threshold: float) -> None:
        self._folder = folder
        self._settings = settings
        self._manifest = adapter_manifest(folder, SPAN_HEAD)
        self._threshold = threshold
        self._lock = threading.Lock()
        self._read: OrderedDict[str, ReadText] = OrderedDict()
        self.base = str(self._manifest["base"])
        self.tokens = int(self._manifest["config"]["query_tokens"])
        self.id = f"elq:{identity(str(folder))}"

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors can be compared with those of a dense encoder: its base, or itself if it learned both."""
        return is_dense(dense_id, str(self._folder) if adapts_passages(self._manifest) else self.base)

    @cached_property
    def _loaded(self) -> tuple[Any, dict[str, Floats]]:
        from safetensors.numpy import load_file

        model = load_sentence_transformer(self.base, device_of(self._settings))
        merge_lora(model, self._folder)
        heads = {name: value.astype(np.float32) for name, value in load_file(str(self._folder / HEADS)).items()}
        return model.eval(), heads

    def read(self, text: str) -> ReadText:
        """One pass over a text; the last few are remembered, so that detecting and encoding read it once."""
        with self._lock:
            known = self._read.get(text)
            if known is None:
                known = self._read[text] = self._pass(text)
                while len(self._read) > _REMEMBERED:
                    self._read.popitem(last=False)
            return known

    def _pass(self, text: str) -> ReadText:
        import torch

        model, heads = self._loaded
        tokenizer = model.tokenizer
        made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
        ids, offsets = made["input_ids"], tuple((int(a), int(b)) for a, b in made["offset_mapping"])
        states = np.zeros((len(ids), heads["projection"].shape[1]), dtype=np.float32)
        spans = windows(len(ids), self.tokens - 2)
        holder = owners(spans, len(ids)) if ids else np.zeros(0, dtype=np.int64)
        with torch.inference_mode():
            for at in range(0, len(spans) if ids else 0, self._settings.batch_size):
                part = spans[at : at + self._settings.batch_size]
                longest = max(end - start for start, end in part) + 2
                ids_NL = torch.full((len(part), longest), tokenizer.pad_token_id, dtype=torch.int64)
                mask_NL = torch.zeros_like(ids_NL)
                for row, (start, end) in enumerate(part):
                    one = [tokenizer.cls_token_id, *ids[start:end], tokenizer.sep_token_id]
                    ids_NL[row, : len(one)] = torch.tensor(one)
                    mask_NL[row, : len(one)] = 1
                features = {"input_ids": ids_NL.to(model.device), "attention_mask": mask_NL.to(model.device)}
                out = model[0](features)["token_embeddings"].float().cpu().numpy()
                for row, (start, end) in enumerate(part):
                    mine = np.flatnonzero(holder[start:end] == at + row)
                    states[start + mine] = out[row, mine + 1]
        return ReadText(offsets, states @ heads["weight"].T + heads["bias"], states)

    def detect(self, text: str) -> list[Mention]:
        """Spans with ``σ(s)`` of at least the threshold, none overlapping another."""
        found = self.possible(text, self._threshold)
        kept = apart([(one.start, one.end) for one in found], [one.score for one in found])
        return [found[at] for at in kept]

    def possible(self, text: str, floor: float) -> list[Mention]:
        """All spans with ``σ(s)`` of at least `floor`, overlapping ones too."""
        read = self.read(text)
        first, last = valid_spans(*word_edges(read.offsets, text))
        if not len(first):
            return []
        score = span_scores(read.logits_L3, first, last)
        probability = 1.0 / (1.0 + np.exp(-np.clip(score, -60, 60)))
        found = []
        for place in np.flatnonzero(probability >= floor).tolist():
            start, end = read.offsets[first[place]][0], read.offsets[last[place]][1]
            found.append(Mention(start, end, text[start:end], "elq", float(probability[place])))
        return found

    def encode_spans(self, items: Sequence[tuple[str, int, int]]) -> VectorArray:
        """Vectors of (text, start, end), shape (n, D): each text is read once, whatever is mentioned in it."""
        _, heads = self._loaded
        found = np.zeros((len(items), heads["projection"].shape[0]), dtype=np.float32)
        for at, (text, start, end) in enumerate(items):
            read = self.read(text)
            inside = [n for n, (a, b) in enumerate(read.offsets) if a < end and b > start]
            if inside:
                vector = heads["projection"] @ read.states_LH[inside].mean(axis=0)
                found[at] = vector / max(float(np.linalg.norm(vector)), 1e-6)
        return found
