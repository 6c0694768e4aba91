"""The representations of a query: BM25 terms, sparse term weights and dense vector. Each is computed once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.ports.encoders import BagEncoder, EncodedQuery, HybridEncoder
from hyblink.app.core.ports.views import WAITING_COUNTED, Snapshot
from hyblink.app.core.types.arrays import TermWeights, TokenIdf, VectorArray
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import VdrMode
from hyblink.app.core.weights import calibrated, heaviest, product


@dataclass(frozen=True, slots=True)
class AnalyzedQuery:
    """A query as text and as analyzed BM25 terms."""

    text: str
    terms: tuple[str, ...]


_CALIBRATED = 256
"""Number of the heaviest query weights that are rescaled by the collection's idf, before they are cut to `limit`."""

_ENCODED_QUERY: tuple[VdrMode, ...] = ("full", "beta")

_ENCODED_PASSAGES: tuple[VdrMode, ...] = ("full", "alpha")


def vdr_mode(wanted: VdrMode, snapshot: Snapshot, best: VdrMode) -> VdrMode:
    """Resolve the VDR mode. `auto` becomes `best`, which is the preferred mode of the encoder.

    It becomes `bag` if there is no VDR encoder, or if over one passage per 20 encoded ones is not encoded yet.
    Raises InvalidInputError if the mode needs a VDR encoder and the generation has none.
    """
    if wanted == "auto":
        if snapshot.vdr is None or snapshot.dense is None or snapshot.waiting >= WAITING_COUNTED:
            return "bag"
        return best if snapshot.waiting * 20 <= snapshot.dense.vectors else "bag"
    if wanted != "bag" and snapshot.vdr is None:
        raise InvalidInputError("the generation has no VDR encoder", received=f"vdr {wanted}", expected="bag or auto")
    return wanted


class QueryForms:
    """The representations of a query for one snapshot, each computed at first use. Thread-safe.

    `limit` is the number of sparse weights to search with. `encode_ms` is the time spent in the encoder.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        query: AnalyzedQuery,
        bag: BagEncoder,
        encoder: HybridEncoder | None,
        mode: VdrMode,
        limit: int,
    ) -> None:
        self.query = query
        self.mode = mode
        self.form = SparseForm.VDR if mode in _ENCODED_PASSAGES else SparseForm.BAG
        self.snapshot = snapshot
        self._bag = bag
        self.encoder = encoder
        self._limit = limit
        self._weights: TermWeights | None = None
        self._encoded: EncodedQuery | None = None
        self._lock = threading.RLock()
        self.encode_ms = 0.0

    def _encode(self) -> EncodedQuery:
        with self._lock:
            if self._encoded is None:
                assert self.encoder is not None
                started = time.perf_counter()
                self._encoded = self.encoder.encode_query(self.query.text)
                self.encode_ms = (time.perf_counter() - started) * 1e3
            return self._encoded

    def weights(self) -> TermWeights:
        """The sparse term weights of the query in its VDR mode, cut to the heaviest `limit`."""
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
        assert self.encoder is not None
        prior = self.encoder.prior_idf(terms.ids)
        if self.mode != "beta" and prior is None:
            return heaviest(terms, self._limit)
        idf = self.snapshot.bag.query_weights(terms.ids.tolist(), len(terms))
        # Bags of tokens on the passage side are binary, so the query weights carry the whole idf.
        weighed = product(terms, idf) if self.mode == "beta" or prior is None else calibrated(terms, idf, prior)
        return heaviest(weighed, self._limit)

    def token_idf(self) -> TokenIdf:
        """The collection's idf of the query's tokens."""
        ids = self._bag.encode_query(self.query.text)
        return TokenIdf(self._bag.id, self.snapshot.bag.query_weights(ids, len(ids)))

    def vector(self) -> VectorArray:
        """The dense vector of the query, shape (D,)."""
        return self._encode().vector_D
