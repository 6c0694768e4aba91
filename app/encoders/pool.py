"""The pool of all encoders: it loads each model once, by id, and shares it."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.core.manifest import MANIFEST
from hyblink.app.core.ports.encoders import (
    BagEncoder,
    CrossEncoder,
    DenseEncoder,
    EntityCross,
    HybridEncoder,
    InTextEncoder,
    MentionEncoder,
    SpanDetector,
)
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.ranking import VdrMode
from hyblink.app.encoders.cross_encoder.entity import DEFAULT as SHIPPED_ENTITY_CROSS
from hyblink.app.encoders.cross_encoder.entity import EntityCrossEncoder
from hyblink.app.encoders.dense.transformer import DenseTransformer, dense_id
from hyblink.app.encoders.families import family_of
from hyblink.app.encoders.family import VdrEncoder
from hyblink.app.encoders.loading.adapters import DENSE_LORA, MENTION_LORA, VDR_HEAD, WEIGHTS
from hyblink.app.encoders.loading.models import is_dense, plain_tokenizer
from hyblink.app.encoders.mention.spacy_ner import SpacyDetector, installed_pipelines
from hyblink.app.encoders.mention.span_head import DEFAULT as SHIPPED_SPAN_HEAD
from hyblink.app.encoders.mention.span_head import SpanHead
from hyblink.app.encoders.mention.tower import DEFAULT as SHIPPED_MENTION
from hyblink.app.encoders.mention.tower import PlainMention
from hyblink.app.encoders.passages import DenseOnly
from hyblink.app.encoders.reranker import DEFAULT as DEFAULT_CROSS
from hyblink.app.encoders.reranker import SHIPPED, Reranker
from hyblink.app.encoders.runtimes.transformer import PRECISIONS
from hyblink.app.encoders.shared_queries import SharedQueries
from hyblink.app.encoders.vdr.adapter import DEFAULT as SHIPPED_VDR
from hyblink.app.encoders.vdr.adapter import VdrAdapter
from hyblink.app.encoders.vdr.bag import BagOfTokens

_T = TypeVar("_T")
_TRAINED = re.compile(r"vdr:(?P<name>[a-z0-9][a-z0-9._-]{0,62}):[0-9a-f]{12}:\d+")


class EncoderPool:
    """Loads encoders by id or by the settings, each once, and shares them between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._dense: dict[str, DenseEncoder] = {}
        self._vdr: dict[str, VdrEncoder] = {}
        self._full: dict[tuple[str, str], HybridEncoder] = {}
        self._cross: CrossEncoder | None = None
        self._mention: dict[str, MentionEncoder | InTextEncoder] = {}
        self._entity_cross: EntityCross | None = None
        self._detectors: dict[str, SpanDetector] = {}
        self._head: SpanHead | None = None
        shipped = DenseTransformer(settings.encode)
        self.add_dense(shipped)
        self._bag = BagOfTokens(settings.encode.dense_model)
        self._bags = {self._bag.id: self._bag}
        self._default_dense = shipped.id
        self._default_vdr, self._default_vdr_reads = self._configured_vdr(shipped), shipped.id

    def _configured_vdr(self, dense: DenseEncoder) -> str:
        """The id of the VDR encoder named by the settings; empty if they name none.

        It is also empty if the shipped default does not fit the dense model. Raises InvalidInputError if a VDR encoder
        that is named explicitly does not fit.
        """
        wanted = self._settings.encode.vdr_model
        folder = SHIPPED_VDR if wanted == "default" else Path(wanted).expanduser()
        if wanted == "none" or (wanted == "default" and not (folder / MANIFEST).is_file()):
            return ""
        encoder = self._load_vdr(folder, dense)
        if encoder.base not in {"", self._settings.encode.dense_model}:
            if wanted == "default":
                return ""
            raise InvalidInputError(
                "the VDR adapter reads another model's states",
                received=f"encode.dense_model {self._settings.encode.dense_model}",
                expected=encoder.base,
            )
        self._vdr[encoder.id] = encoder
        if encoder.vocabulary:
            self._bag = BagOfTokens(encoder.vocabulary)
            self._bags[self._bag.id] = self._bag
        return encoder.id

    def _load_vdr(self, folder: Path, dense: DenseEncoder) -> VdrEncoder:
        """The VDR encoder in a folder. Raises EncoderUnavailableError if the folder holds none."""
        family = family_of(str(folder), VDR_HEAD)
        if family.vdr is None:
            raise EncoderUnavailableError("not a VDR encoder", received=family.kind, expected="a VDR head or model")
        return family.vdr(folder, self._settings.encode, dense)

    @property
    def default_dense(self) -> DenseEncoder:
        """The dense encoder of new generations: the one named by the settings, or set by `use_as_default`."""
        return self._dense[self._default_dense]

    @property
    def default_vdr_model(self) -> str:
        """The id of the VDR encoder of new generations; empty if there is none for the default dense encoder."""
        return self._default_vdr if self._default_vdr_reads == self._default_dense else ""

    @property
    def default_bag(self) -> BagEncoder:
        """The bag encoder of new generations, over the default VDR encoder's vocabulary."""
        return self._bag

    def use_as_default(self, encoder_id: str) -> None:
        """Make a known dense encoder the default for new generations."""
        self._default_dense = self.dense(encoder_id).id

    def add_vdr(self, encoder: VdrEncoder, *, reads: str) -> None:
        """Register a VDR encoder and make it the default for new generations with the dense encoder id `reads`."""
        self._vdr[encoder.id] = encoder
        self._default_vdr, self._default_vdr_reads = encoder.id, reads

    def add_dense(self, encoder: DenseEncoder) -> None:
        """Register a dense encoder under its id."""
        with self._lock:
            self._dense[encoder.id] = encoder
            self._full = {key: full for key, full in self._full.items() if key[0] != encoder.id}

    def dense(self, encoder_id: str) -> DenseEncoder:
        """The dense encoder of this id. Raises EncoderUnavailableError if there is none.

        The configured model serves generations of every precision that can be made here.
        """
        with self._lock:
            if encoder_id not in self._dense:
                settings = self._settings.encode
                for precision in PRECISIONS:
                    if encoder_id == dense_id(settings.dense_model, settings.max_seq_tokens, precision):
                        self._dense[encoder_id] = DenseTransformer(settings, precision)
            return _known(self._dense, encoder_id, "dense encoder")

    def bag(self, encoder_id: str) -> BagEncoder:
        """The bag encoder of this id. Raises EncoderUnavailableError if there is none."""
        return _known(self._bags, encoder_id, "VDR vocabulary")

    def best_vdr_mode(self, record: GenerationRecord) -> VdrMode:
        """The mode that the generation's VDR encoder recommends; `bag` if it has no VDR encoder."""
        return self._vdr_of(record.vdr_model, record.dense_encoder).mode if record.vdr_model else "bag"

    def _vdr_of(self, encoder_id: str, dense_id: str) -> VdrEncoder:
        """The VDR encoder of this id, loaded from the trained models if needed. Raises EncoderUnavailableError."""
        with self._lock:
            match = _TRAINED.fullmatch(encoder_id)
            folder = self._settings.models_dir / match["name"] if match else None
            if encoder_id not in self._vdr and folder is not None and folder.is_dir():
                encoder = self._trained_on(folder, self.dense(dense_id))
                self._vdr.setdefault(encoder.id, encoder)
            return _known(self._vdr, encoder_id, "VDR encoder")

    def trained_vdr(self, name: str, dense_id: str) -> str:
        """Load the trained VDR encoder `name` for the dense encoder `dense_id` and return its id.

        Raises EncoderUnavailableError if there is none or it was trained on another dense model.
        """
        encoder = self._trained_on(self._settings.models_dir / name, self.dense(dense_id))
        with self._lock:
            self._vdr.setdefault(encoder.id, encoder)
        return encoder.id

    def trained_name(self, vdr_id: str) -> str:
        """The name (folder) of the trained model with a VDR encoder id; empty if it is the default or not trained."""
        match = _TRAINED.fullmatch(vdr_id)
        known = vdr_id != self._default_vdr and match and (self._settings.models_dir / match["name"]).is_dir()
        return match["name"] if known and match else ""

    def vdr_adapter(self, record: GenerationRecord) -> VdrAdapter | None:
        """The VDR adapter of a generation, which can be trained further; None if it has none or uses a whole model."""
        found = self._vdr_of(record.vdr_model, record.dense_encoder) if record.vdr_model else None
        return found.adapter if found is not None else None

    def _trained_on(self, folder: Path, dense: DenseEncoder) -> VdrEncoder:
        encoder = self._load_vdr(folder, dense)
        if encoder.base and not is_dense(dense.id, encoder.base):
            raise EncoderUnavailableError(
                "the VDR adapter reads another model's states", received=dense.id, expected=encoder.base
            )
        return encoder

    def hybrid_encoder(self, record: GenerationRecord) -> HybridEncoder:
        """The dense and VDR encoders of a generation as one. Raises EncoderUnavailableError if one is not available."""
        key = (record.dense_encoder, record.vdr_model)
        with self._lock:
            if key not in self._full:
                dense = self.dense(record.dense_encoder)
                full = (
                    self._vdr_of(record.vdr_model, record.dense_encoder).with_dense(dense)
                    if record.vdr_model
                    else DenseOnly(dense)
                )
                self._full[key] = SharedQueries(full)
            return self._full[key]

    def cross(self) -> CrossEncoder:
        """The reranker named by the settings. Raises EncoderUnavailableError if they name none."""
        with self._lock:
            if self._cross is None:
                wanted = self._settings.encode.cross_encoder
                if wanted == "none":
                    raise EncoderUnavailableError(
                        "no cross-encoder is configured",
                        received=wanted,
                        expected="encode.cross_encoder: a hub name or folder",
                    )
                ours = {"default": DEFAULT_CROSS} | {name: WEIGHTS / name for name in SHIPPED}
                model = str(ours.get(wanted, wanted))
                self._cross = Reranker(model, self._settings.encode)
            return self._cross

    def mention(self, record: GenerationRecord) -> MentionEncoder | InTextEncoder:
        """The mention encoder for a generation: the one named by the settings, or its dense encoder used unchanged.

        Raises EncoderUnavailableError if the settings name a mention encoder for another dense encoder.
        """
        with self._lock:
            if record.dense_encoder not in self._mention:
                self._mention[record.dense_encoder] = self._mention_for(record.dense_encoder)
            return self._mention[record.dense_encoder]

    def _mention_for(self, dense_id: str) -> MentionEncoder | InTextEncoder:
        wanted = self._settings.link.mention_encoder
        if wanted == "elq":
            head = self._span_head()
            if not head.fits(dense_id):
                raise EncoderUnavailableError("the span head is for other vectors", received=dense_id)
            return head
        folder = SHIPPED_MENTION if wanted == "default" else Path(wanted).expanduser()
        if wanted == "dense" or (wanted == "default" and not (folder / MANIFEST).is_file()):
            return PlainMention(self.dense(dense_id))
        family = family_of(str(folder), MENTION_LORA)
        if family.mention is None:
            raise EncoderUnavailableError(
                "not a mention adapter", received=family.kind, expected=f"{MENTION_LORA} or {DENSE_LORA}"
            )
        tower = family.mention(folder, self._settings.encode)
        if tower.fits(dense_id):
            return tower
        if wanted == "default":
            return PlainMention(self.dense(dense_id))
        raise EncoderUnavailableError(
            "the mention encoder is for other vectors", received=f"the collection's {dense_id}",
            expected=f"vectors of {tower.base}",
        )  # fmt: skip

    def entity_cross(self) -> EntityCross:
        """The cross-encoder of entity linking. Raises EncoderUnavailableError if none is configured."""
        with self._lock:
            if self._entity_cross is None:
                wanted = self._settings.link.cross_encoder
                if wanted == "none" or (wanted == "default" and not (SHIPPED_ENTITY_CROSS / MANIFEST).is_file()):
                    raise EncoderUnavailableError(
                        "no cross-encoder for entities is configured", received=wanted,
                        expected="link.cross_encoder: a hub name or folder",
                    )  # fmt: skip
                self._entity_cross = EntityCrossEncoder(
                    str(SHIPPED_ENTITY_CROSS) if wanted == "default" else wanted,
                    self._settings.encode,
                    mention_tokens=self._settings.link.mention_tokens,
                )
            return self._entity_cross

    def use_entity_cross(self, encoder: EntityCross) -> None:
        """Replace the cross-encoder of entity linking."""
        self._entity_cross = encoder

    def mention_tokenizer(self) -> Any:
        """The tokenizer of the dense model, for measuring the contexts of mentions in tokens."""
        return plain_tokenizer(self._settings.encode.dense_model)

    def _span_head(self) -> SpanHead:
        with self._lock:
            if self._head is None:
                wanted = self._settings.link.span_head
                folder = SHIPPED_SPAN_HEAD if wanted == "default" else Path(wanted).expanduser()
                own = self._settings.link
                self._head = SpanHead(
                    folder, self._settings.encode, threshold=own.span_threshold, keep=own.span_keep,
                    at_least=own.span_at_least, window=own.span_window,
                )  # fmt: skip
            return self._head

    def span_detector(self, name: str) -> SpanDetector:
        """A mention detector by name: `elq`, or `spacy:` and a pipeline that is installed or named by the settings.

        Raises InvalidInputError for any other name.
        """
        with self._lock:
            if name == "elq":
                return self._span_head()
            if name not in self._detectors:
                allowed = [
                    *(f"spacy:{installed_pipeline}" for installed_pipeline in installed_pipelines()),
                    *self._settings.link.detectors,
                ]
                if not name.startswith("spacy:") or name not in allowed:
                    known = dict.fromkeys(("dictionary", "elq", *allowed))
                    raise InvalidInputError("unknown detector", received=name, expected=", ".join(known))
                self._detectors[name] = SpacyDetector(name.removeprefix("spacy:"))
            return self._detectors[name]

    def use_cross(self, encoder: CrossEncoder) -> None:
        """Replace the reranker."""
        self._cross = encoder

    def put_hybrid_encoder(self, record: GenerationRecord, encoder: HybridEncoder) -> None:
        """Replace the encoder of all generations with this one's dense and VDR encoder ids.

        Evaluation uses it for an encoder that caches the test queries.
        """
        with self._lock:
            self._full[record.dense_encoder, record.vdr_model] = encoder


def _known(encoders: Mapping[str, _T], encoder_id: str, what: str) -> _T:
    found = encoders.get(encoder_id)
    if found is None:
        raise EncoderUnavailableError(
            f"the generation's {what} is not configured",
            received=encoder_id,
            expected=f"one of {', '.join(encoders) or '(none)'}",
        )
    return found
