"""A query's forms: its terms, its weights over the vocabulary, its vector, each made once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.ports.encoders import BagEncoder, EncodedQuery, FullEncoder
from hyblink.app.core.ports.views import WAITING_COUNTED, Snapshot
from hyblink.app.core.types.arrays import TermWeights, TokenIdf, VectorArray
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import VdrMode
from hyblink.app.core.weights import calibrated, heaviest, product


@dataclass(frozen=True, slots=True)
class AnalyzedQuery:
    """A query as text and as the terms that BM25 looks for. Dense and VDR forms are made inside their legs."""

    text: str
    terms: tuple[str, ...]


_CALIBRATED = 256
"""A query's heaviest weights that are given the collection's idf; the heaviest of those are searched with."""

_ENCODED_QUERY: tuple[VdrMode, ...] = ("full", "beta")

_ENCODED_PASSAGES: tuple[VdrMode, ...] = ("full", "alpha")


def vdr_mode(wanted: VdrMode, snapshot: Snapshot, best: VdrMode) -> VdrMode:
    """The mode that answers. `auto` takes the encoder's `best` unless more than one passage in twenty waits for it.

    Raises InvalidInputError where a mode asks for an encoder that the generation has not.
    """
    if wanted == "auto":
        if snapshot.vdr is None or snapshot.dense is None or snapshot.waiting >= WAITING_COUNTED:
            return "bag"
        return best if snapshot.waiting * 20 <= snapshot.dense.vectors else "bag"
    if wanted != "bag" and snapshot.vdr is None:
        raise InvalidInputError("the generation has no VDR encoder", received=f"vdr {wanted}", expected="bag or auto")
    return wanted


class QueryForms:
    """A query's forms for one snapshot, each made once, by whoever asks first. Safe to share between threads."""

    def __init__(
        self,
        snapshot: Snapshot,
        query: AnalyzedQuery,
        bag: BagEncoder,
        encoder: FullEncoder | None,
        mode: VdrMode,
        limit: int,
    ) -> None:
        self.query = query
        self.mode = mode
        self.form = SparseForm.VDR if mode in _ENCODED_PASSAGES else SparseForm.BAG
        self.snapshot = snapshot
        self._bag = bag
        self._encoder = encoder
        self._limit = limit
        self._weights: TermWeights | None = None
        self._encoded: EncodedQuery | None = None
        self._lock = threading.RLock()
        self.encode_ms = 0.0

    def _encode(self) -> EncodedQuery:
        with self._lock:
            if self._encoded is None:
                assert self._encoder is not None
                started = time.perf_counter()
                self._encoded = self._encoder.encode_query(self.query.text)
                self.encode_ms = (time.perf_counter() - started) * 1e3
            return self._encoded

    def weights(self) -> TermWeights:
        """The query's term weights in its mode, the heaviest `limit`."""
        with self._lock:
            if self._weights is None:
                self._weights = self._made()
            return self._weights

    def _made(self) -> TermWeights:
        if self.mode in _ENCODED_QUERY:
            encoded = self._encode().weights
            assert encoded is not None
            terms = heaviest(encoded, _CALIBRATED)
        else:
            ids = np.array(self._bag.encode_query(self.query.text), dtype=np.int32)
            if self.mode == "bag":
                return self.snapshot.bag.query_weights(ids.tolist(), self._limit)
            terms = TermWeights(ids, np.ones(len(ids), dtype=np.float32))
        assert self._encoder is not None
        prior = self._encoder.prior_idf(terms.ids)
        if self.mode != "beta" and prior is None:
            return heaviest(terms, self._limit)
        idf = self.snapshot.bag.query_weights(terms.ids.tolist(), len(terms))
        # A bag of tokens says only which tokens a passage has: there the query brings all of the idf.
        weighed = product(terms, idf) if self.mode == "beta" or prior is None else calibrated(terms, idf, prior)
        return heaviest(weighed, self._limit)

    def token_idf(self) -> TokenIdf:
        """The collection's idf of the query's tokens."""
        ids = self._bag.encode_query(self.query.text)
        return TokenIdf(self._bag.id, self.snapshot.bag.query_weights(ids, len(ids)))

    def vector(self) -> VectorArray:
        """The dense vector, shape (D,)."""
        return self._encode().vector_D
