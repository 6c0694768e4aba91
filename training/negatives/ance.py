"""Negatives that a model mines for itself while it learns (Xiong et al. 2021, ANCE; Zhan et al. 2021).

Every N steps its weights are copied and a thread encodes the passages with the copy, while training goes on; what the
copy proposes is drawn from in the period after. So a period's negatives depend on the weights of one step alone,
however long encoding took: a run that was killed and goes on draws what it would have drawn. Copies and what was mined
from them are kept beside the checkpoints.

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
"""Columns from which on embeddings are held sparse."""


class Retriever(Protocol):
    """A model that embeds queries and passages; a score is a dot product of what `embedding` gives."""

    def parameters(self) -> Any: ...

    def train(self, on: bool) -> None: ...

    def queries(self, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]: ...

    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]: ...

    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor: ...


class OwnNegatives:
    """What each row may draw as negatives, step by step. `shadow` is a second model that is only ever copied to."""

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
        joined = "\0".join(one.joined for one in corpus)
        self._digest = hashlib.sha256(joined.encode()).hexdigest()

    def on_step(self, step: int) -> None:
        """Call before each step: begins to mine where a period begins, and takes up what the last one mined."""
        period, within = divmod(step, self._every)
        if within == 0:
            if period:
                self._take(period - 1)
            self._start(period, fresh=True)
        elif not self._begun:  # a run that goes on in the middle of a period
            if period:
                self._take(period - 1)
            self._start(period, fresh=False)
        self._begun = True

    def pool(self, row: int) -> Sequence[Text]:
        """What the model mined for a row; nothing in the first period."""
        return self._mined[row] if self._mined is not None else ()

    def close(self) -> None:
        """Give up what is under way: nobody will draw from it."""
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
        one = self._corpus[at]
        return Text(one.text, one.title, one.id, f"self-{step}@{rank}")

    def _start(self, period: int, *, fresh: bool) -> None:
        """Mine with the weights of the period's first step: the model's, or those kept of them."""
        last = (period + 1) * self._every >= self._steps  # no step would draw from what it mines
        if last or (not fresh and self._file(period).is_file()):
            return
        parameters = dict(self._shadow.parameters())
        if fresh:
            checkpoint.keep_weights(self._copy(period), dict(self._model.parameters()))
        checkpoint.restore_weights(self._copy(period), parameters)
        self._pending = _Work(lambda: self._write(period))
        self._pending.start()

    def _write(self, period: int) -> None:
        """Mined negatives stay: an older checkpoint may need them. The copy has done its work."""
        mined = self._mine()
        if mined is not None:
            write_json(self._file(period), {"rows": mined, "corpus": self._digest})
            shutil.rmtree(self._copy(period), ignore_errors=True)

    def _mine(self) -> list[list[int]] | None:
        """Places in the corpus for each row; None where nobody wants them any more."""
        self._shadow.train(False)
        place = {one.joined: at for at, one in enumerate(self._corpus)}
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
                    if not kept:  # such as an answer that stands in every passage: then any that is not a positive
                        kept = self._kept(row, order, scores_P, replace(_ANY, keep=self._mining.keep))
                    if not kept:
                        raise InvalidInputError(
                            "no passage can be a negative", received=row.query, expected="more, and other, passages"
                        )
                    mined.append([place[one] for one in kept])
        return mined

    def _kept(self, row: TrainingRow, order: Sequence[int], scores_P: Any, mining: Mining) -> list[str]:
        proposals = [Proposal(self._corpus[at], "self", rank, float(scores_P[at])) for rank, at in enumerate(order, 1)]
        return [one.text.joined for one in select(row, proposals, mining)]


def _embedded(model: Retriever, encode: Callable[[Any], tuple[torch.Tensor, ...]], items: Sequence[Any]) -> Any:
    """Embeddings of rows or texts, one line each; sparse where they are wide."""
    parts = []
    for at in range(0, len(items), _BATCH):
        part = model.embedding(encode(items[at : at + _BATCH])).float().cpu().numpy()
        parts.append(sp.csr_matrix(part) if part.shape[1] > _WIDE else part)
    return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)


class _Work:
    """A thread whose failure is raised where it is waited for."""

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
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self._error = error


def corpus_of(rows: Sequence[TrainingRow], more: Sequence[Text]) -> list[Text]:
    """Every passage to mine among: those of the rows, and the whole corpora that are known; each once, in order."""
    found: dict[str, Text] = {}
    for one in (*more, *(text for row in rows for text in (*row.positives, *row.negatives))):
        found.setdefault(one.joined, one)
    return list(found.values())
