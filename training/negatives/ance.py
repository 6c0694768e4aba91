"""Hard negatives mined with the model itself during training (ANCE, Xiong et al. 2021; Zhan et al. 2021).

Training is divided into periods of N steps. At the start of a period the weights are copied, and a thread mines
negatives with the copy while training goes on. They are used in the next period. The negatives of a period therefore
depend only on the weights of one step, not on timing, and a resumed run uses the same ones. Copies of weights and mined
negatives are stored next to the checkpoints.

Shapes: Q training rows, P passages.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import scipy.sparse as sp
import torch

from hyblink.app.core.errors import CorruptionError, InvalidInputError
from hyblink.app.core.manifest import write_json
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.loop import checkpoint
from hyblink.training.negatives.mining import Mining, Proposal, select

_BATCH = 64
_ANY = Mining(last_rank=2**31, drop_near_duplicates=False, drop_answers=False)
_WIDE = 4096
"""Embeddings with more columns than this are stored as sparse matrices."""


class Retriever(Protocol):
    """A model that embeds queries and passages. The score is the dot product of the results of `embedding`."""

    def parameters(self) -> Any: ...

    def train(self, on: bool) -> None: ...

    def queries(self, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]: ...

    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]: ...

    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor: ...


class AnceMiner:
    """Mines and provides the negatives of each row during training (ANCE).

    `shadow` is a second model of the same architecture that receives copies of the weights. `every` is the length of a
    period and `steps` that of the run, in steps. Mined negatives are read and written in `folder`.
    """

    def __init__(
        self,
        model: Retriever,
        shadow: Retriever,
        rows: Sequence[TrainingRow],
        corpus: Sequence[Text],
        folder: Path,
        *,
        every: int,
        steps: int,
        mining: Mining,
    ) -> None:
        self._model, self._shadow = model, shadow
        self._rows, self._corpus = rows, corpus
        self._folder = folder
        self._every, self._steps = every, steps
        self._mining = mining
        self._mined: list[tuple[Text, ...]] | None = None
        self._pending: _Work | None = None
        self._begun = False
        self._stopped = threading.Event()
        joined = "\0".join(document.joined for document in corpus)
        self._digest = hashlib.sha256(joined.encode()).hexdigest()

    def on_step(self, step: int) -> None:
        """Call before each step. At the start of a period, loads what the last one mined and starts mining again.

        Waits if mining of the last period is not finished. Raises CorruptionError if stored negatives belong to other
        data, or the error of the mining thread.
        """
        period, within = divmod(step, self._every)
        if within == 0:
            if period:
                self._take(period - 1)
            self._start(period, fresh=True)
        elif not self._begun:  # a run that resumes in the middle of a period
            if period:
                self._take(period - 1)
            self._start(period, fresh=False)
        self._begun = True

    def pool(self, row: int) -> Sequence[Text]:
        """The mined negatives of a row, hardest first; empty in the first period."""
        return self._mined[row] if self._mined is not None else ()

    def close(self) -> None:
        """Stop the mining that is in progress and wait for its thread."""
        self._stopped.set()
        if self._pending is not None:
            self._pending.wait()

    def _file(self, period: int) -> Path:
        return self._folder / f"mined-{period}.json"

    def _copy(self, period: int) -> Path:
        return self._folder / f"copied-{period}"

    def _take(self, period: int) -> None:
        if self._pending is not None:
            self._pending.join()
        if not self._file(period).is_file():
            self._start(period, fresh=False)
            assert self._pending is not None
            self._pending.join()
        read = orjson.loads(self._file(period).read_bytes())
        places = read["rows"]
        if len(places) != len(self._rows) or read["corpus"] != self._digest:
            raise CorruptionError(
                "mined negatives belong to other data", received=self._file(period).name, expected="those of this run"
            )
        step = period * self._every
        self._mined = [tuple(self._named(at, step, rank) for rank, at in enumerate(own, 1)) for own in places]

    def _named(self, at: int, step: int, rank: int) -> Text:
        passage = self._corpus[at]
        return Text(passage.text, passage.title, passage.id, f"self-{step}@{rank}")

    def _start(self, period: int, *, fresh: bool) -> None:
        """Start mining with the weights of the period's first step: the current ones if `fresh`, else saved ones."""
        last = (period + 1) * self._every >= self._steps  # no later period would use the mined negatives
        if last or (not fresh and self._file(period).is_file()):
            return
        parameters = dict(self._shadow.parameters())
        if fresh:
            checkpoint.save_best_weights(self._copy(period), dict(self._model.parameters()))
        checkpoint.load_best_weights(self._copy(period), parameters)
        self._pending = _Work(lambda: self._write(period))
        self._pending.start()

    def _write(self, period: int) -> None:
        """Mine and store the negatives, then delete the copied weights.

        Stored negatives are never deleted, because a run may resume from an older checkpoint.
        """
        mined = self._mine()
        if mined is not None:
            write_json(self._file(period), {"rows": mined, "corpus": self._digest})
            shutil.rmtree(self._copy(period), ignore_errors=True)

    def _mine(self) -> list[list[int]] | None:
        """Corpus indices of the negatives of each row, or None if `close` was called."""
        self._shadow.train(False)
        place = {document.joined: at for at, document in enumerate(self._corpus)}
        with torch.no_grad():
            found_P = _embedded(self._shadow, self._shadow.passages, self._corpus)
            mined = []
            for first in range(0, len(self._rows), _BATCH):
                some = self._rows[first : first + _BATCH]
                scores = _embedded(self._shadow, self._shadow.queries, some) @ found_P.T
                scores_QP = np.asarray(scores.todense() if sp.issparse(scores) else scores)
                for row, scores_P in zip(some, scores_QP, strict=True):
                    if self._stopped.is_set():
                        return None
                    order = np.argsort(-scores_P, kind="stable").tolist()
                    depth = self._mining.last_rank + len(row.positives)
                    kept = self._kept(row, order[:depth], scores_P, self._mining)
                    if not kept:  # e.g. every passage contains the answer: then accept any that is not a positive
                        kept = self._kept(row, order, scores_P, replace(_ANY, keep=self._mining.keep))
                    if not kept:
                        raise InvalidInputError(
                            "no passage can be a negative", received=row.query, expected="more, and other, passages"
                        )
                    mined.append([place[item] for item in kept])
        return mined

    def _kept(self, row: TrainingRow, order: Sequence[int], scores_P: Any, mining: Mining) -> list[str]:
        proposals = [Proposal(self._corpus[at], "self", rank, float(scores_P[at])) for rank, at in enumerate(order, 1)]
        return [item.text.joined for item in select(row, proposals, mining)]


def _embedded(model: Retriever, encode: Callable[[Any], tuple[torch.Tensor, ...]], items: Sequence[Any]) -> Any:
    """The embeddings of rows or texts, shape (len(items), D); a CSR matrix if D is over 4096."""
    parts = []
    for at in range(0, len(items), _BATCH):
        part = model.embedding(encode(items[at : at + _BATCH])).float().cpu().numpy()
        parts.append(sp.csr_matrix(part) if part.shape[1] > _WIDE else part)
    return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)


class _Work:
    """A thread whose exception is raised again by `join`; `wait` ignores it."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._guarded, name="hyblink-negatives", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def join(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - raised again by join
            self._error = error


def corpus_of(rows: Sequence[TrainingRow], more: Sequence[Text]) -> list[Text]:
    """The distinct passages to mine from: those in `more` (whole corpora), then those of the rows."""
    found: dict[str, Text] = {}
    for item in (*more, *(text for row in rows for text in (*row.positives, *row.negatives))):
        found.setdefault(item.joined, item)
    return list(found.values())
