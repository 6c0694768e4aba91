"""Encodes queries once: a bounded cache of encoded queries, and one pass for those that come at the same time.

A query that comes while nothing is computed starts at once. Those that come during its pass wait for its end and are
then encoded together, at most 32 in a pass. When the service is idle there is no wait.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.budget import check_models, unchecked
from hyblink.app.core.ports.encoders import EncodedPassages, EncodedQuery, HybridEncoder
from hyblink.app.core.types.arrays import ScoreArray
from hyblink.app.encoders.graphs.cache import threads

_KEPT = 2048
"""The number of cached queries, each of about 4 kB."""
_TOGETHER = 32
"""The largest number of queries in a pass."""


@dataclass(slots=True)
class _Asked:
    """A query that waits for its encoding."""

    made: EncodedQuery | None = None
    error: BaseException | None = None


class SharedQueries:
    """A `HybridEncoder` that shares the encodings of queries between threads and requests. Thread-safe."""

    def __init__(self, encoder: HybridEncoder, kept: int = _KEPT) -> None:
        """`kept` is the number of cached queries."""
        self._encoder = encoder
        self._kept = kept
        self._known: OrderedDict[str, EncodedQuery] = OrderedDict()
        self._waiting: OrderedDict[str, _Asked] = OrderedDict()
        self._changed = threading.Condition()
        self._busy = False

    def load(self) -> None:
        self._encoder.load()

    def encode_query(self, text: str) -> EncodedQuery:
        with self._changed:
            known = self._known.get(text)
            if known is not None:
                self._known.move_to_end(text)
                return known
            check_models()
            mine = self._waiting.setdefault(text, _Asked())
            while mine.made is None and mine.error is None:
                if self._busy:
                    self._changed.wait()
                else:
                    self._pass()
            if mine.error is not None:
                raise mine.error
            assert mine.made is not None
            return mine.made

    def _pass(self) -> None:
        """Encode the queries that wait, without the lock. It is held at the beginning and at the end."""
        texts = list(self._waiting)[:_TOGETHER]
        asked = [self._waiting.pop(text) for text in texts]
        self._busy = True
        self._changed.release()
        made: list[EncodedQuery] = []
        error: BaseException | None = None
        try:
            with unchecked(threads() / len(texts)):
                made = (
                    [self._encoder.encode_query(texts[0])] if len(texts) == 1 else self._encoder.encode_queries(texts)
                )
        except BaseException as failure:  # noqa: BLE001  # every query of the pass raises it
            error = failure
        finally:
            self._changed.acquire()
            self._busy = False
            for at, item in enumerate(asked):
                item.error = error
                if error is None:
                    item.made = self._known[texts[at]] = made[at]
            while len(self._known) > self._kept:
                self._known.popitem(last=False)
            self._changed.notify_all()

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        """The encodings of many queries, in batches. Those that are cached are not encoded again."""
        with self._changed:
            known = {text: self._known[text] for text in texts if text in self._known}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known |= dict(zip(missing, self._encoder.encode_queries(missing), strict=True))
        return [known[text] for text in texts]

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        return self._encoder.encode_passages(titles, texts)

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return self._encoder.prior_idf(ids)
