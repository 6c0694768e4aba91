"""Encoders by id, each made once and shared."""

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
    FullEncoder,
    InTextEncoder,
    MentionEncoder,
    SpanDetector,
)
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.ranking import VdrMode
from hyblink.app.encoders.cross_encoder.entity import DEFAULT as SHIPPED_ENTITY_CROSS
from hyblink.app.encoders.cross_encoder.entity import EntityCrossEncoder
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.families import family_of
from hyblink.app.encoders.family import VdrEncoder
from hyblink.app.encoders.loading.adapters import DENSE_LORA, MENTION_LORA, VDR_HEAD, WEIGHTS
from hyblink.app.encoders.loading.models import is_dense, plain_tokenizer, root_of
from hyblink.app.encoders.mention.spacy_ner import SpacyDetector, installed_pipelines
from hyblink.app.encoders.mention.span_head import DEFAULT as SHIPPED_SPAN_HEAD
from hyblink.app.encoders.mention.span_head import SpanHead
from hyblink.app.encoders.mention.tower import DEFAULT as SHIPPED_MENTION
from hyblink.app.encoders.mention.tower import PlainMention
from hyblink.app.encoders.passages import DenseOnly
from hyblink.app.encoders.reranker import DEFAULT as DEFAULT_CROSS
from hyblink.app.encoders.reranker import SHIPPED, Reranker
from hyblink.app.encoders.vdr.adapter import DEFAULT as SHIPPED_VDR
from hyblink.app.encoders.vdr.adapter import VdrAdapter
from hyblink.app.encoders.vdr.bag import BagOfTokens

_T = TypeVar("_T")
_TRAINED = re.compile(r"vdr:(?P<name>[a-z0-9][a-z0-9._-]{0,62}):[0-9a-f]{12}:\d+")
PRECISIONS = {"precision": ("auto", "fp32", "bf16"), "cross_encoder_precision": ("auto", "fp32", "bf16", "int8")}


class EncoderPool:
    """Encoders by id, each made once and shared."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._dense: dict[str, DenseEncoder] = {}
        self._vdr: dict[str, VdrEncoder] = {}
        self._full: dict[tuple[str, str], FullEncoder] = {}
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
        """The id of the VDR encoder that the settings name, "" where they name none or it is for another model."""
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
        """A VDR encoder in a folder. Raises EncoderUnavailableError where it holds none."""
        family = family_of(str(folder), VDR_HEAD)
        if family.vdr is None:
            raise EncoderUnavailableError("not a VDR encoder", received=family.kind, expected="a VDR head or model")
        return family.vdr(folder, self._settings.encode, dense)

    @property
    def default_dense(self) -> DenseEncoder:
        """The encoder that the settings name."""
        return self._dense[self._default_dense]

    @property
    def default_vdr_model(self) -> str:
        """The id of the VDR encoder that goes with the default dense one; "" where there is none."""
        return self._default_vdr if self._default_vdr_reads == self._default_dense else ""

    @property
    def default_bag(self) -> BagEncoder:
        """The bag of tokens over the default encoder's vocabulary."""
        return self._bag

    def use_as_default(self, encoder_id: str) -> None:
        """Bind new generations to a known encoder."""
        self._default_dense = self.dense(encoder_id).id

    def add_vdr(self, encoder: VdrEncoder, *, reads: str) -> None:
        """Make a VDR encoder known; new generations whose dense encoder it reads are bound to it."""
        self._vdr[encoder.id] = encoder
        self._default_vdr, self._default_vdr_reads = encoder.id, reads

    def add_dense(self, encoder: DenseEncoder) -> None:
        """Make an encoder known under its id."""
        with self._lock:
            self._dense[encoder.id] = encoder

    def dense(self, encoder_id: str) -> DenseEncoder:
        """A dense encoder. Raises EncoderUnavailableError where there is none of that id."""
        return _known(self._dense, encoder_id, "dense encoder")

    def bag(self, encoder_id: str) -> BagEncoder:
        """A bag of tokens. Raises EncoderUnavailableError where there is none of that id."""
        return _known(self._bags, encoder_id, "VDR vocabulary")

    def vdr_mode(self, record: GenerationRecord) -> VdrMode:
        """What the generation's VDR encoder does best; bags where it has none."""
        return self._vdr_of(record.vdr_model, record.dense_encoder).mode if record.vdr_model else "bag"

    def _vdr_of(self, encoder_id: str, dense_id: str) -> VdrEncoder:
        """A VDR encoder by its id: of the settings, or among the trained models. Raises EncoderUnavailableError."""
        with self._lock:
            match = _TRAINED.fullmatch(encoder_id)
            folder = self._settings.models_dir / match["name"] if match else None
            if encoder_id not in self._vdr and folder is not None and folder.is_dir():
                encoder = self._trained_on(folder, self.dense(dense_id))
                self._vdr.setdefault(encoder.id, encoder)
            return _known(self._vdr, encoder_id, "VDR encoder")

    def trained_vdr(self, name: str, dense_id: str) -> str:
        """The id of a trained VDR head for generations with this dense encoder. Raises EncoderUnavailableError."""
        encoder = self._trained_on(self._settings.models_dir / name, self.dense(dense_id))
        with self._lock:
            self._vdr.setdefault(encoder.id, encoder)
        return encoder.id

    def trained_name(self, vdr_id: str) -> str:
        """The name of the trained model that a VDR encoder is; "" for that of the settings and others."""
        match = _TRAINED.fullmatch(vdr_id)
        known = vdr_id != self._default_vdr and match and (self._settings.models_dir / match["name"]).is_dir()
        return match["name"] if known and match else ""

    def vdr_adapter(self, record: GenerationRecord) -> VdrAdapter | None:
        """The head of a generation's VDR encoder; None where it has none of ours."""
        found = self._vdr_of(record.vdr_model, record.dense_encoder) if record.vdr_model else None
        return found.adapter if found is not None else None

    def _trained_on(self, folder: Path, dense: DenseEncoder) -> VdrEncoder:
        encoder = self._load_vdr(folder, dense)
        if encoder.base and not is_dense(dense.id, encoder.base):
            raise EncoderUnavailableError(
                "the VDR adapter reads another model's states", received=dense.id, expected=encoder.base
            )
        return encoder

    def full(self, record: GenerationRecord) -> FullEncoder:
        """A generation's encoders together. Raises EncoderUnavailableError where one of them is not configured."""
        key = (record.dense_encoder, record.vdr_model)
        with self._lock:
            if key not in self._full:
                dense = self.dense(record.dense_encoder)
                if not record.vdr_model:
                    return DenseOnly(dense)
                self._full[key] = self._vdr_of(record.vdr_model, record.dense_encoder).with_dense(dense)
            return self._full[key]

    def cross(self) -> CrossEncoder:
        """What re-ranks. Raises EncoderUnavailableError where the settings name nothing."""
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
                self._cross = Reranker(model, self._settings.encode, self._settings.data_dir / "onnx")
            return self._cross

    def mention(self, record: GenerationRecord) -> MentionEncoder | InTextEncoder:
        """What encodes mentions for a generation's vectors: the adapter of the settings, or its dense encoder as it is.

        Raises EncoderUnavailableError where the settings name an adapter of another dense encoder.
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
        """What reads mention and entity together. Raises EncoderUnavailableError where there is none."""
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
                    cache=self._settings.data_dir / "onnx",
                )
            return self._entity_cross

    def use_entity_cross(self, encoder: EntityCross) -> None:
        """Read mentions and entities together with this one."""
        self._entity_cross = encoder

    def mention_tokenizer(self) -> Any:
        """The tokenizer of the dense model, which counts the tokens of mentions' contexts."""
        return plain_tokenizer(root_of(self._settings.encode.dense_model))

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
        """A detector by name: `elq`, or `spacy:` and an installed pipeline or one that the settings name.

        Raises InvalidInputError for another name.
        """
        with self._lock:
            if name == "elq":
                return self._span_head()
            if name not in self._detectors:
                allowed = [*(f"spacy:{one}" for one in installed_pipelines()), *self._settings.link.detectors]
                if not name.startswith("spacy:") or name not in allowed:
                    known = dict.fromkeys(("dictionary", "elq", *allowed))
                    raise InvalidInputError("unknown detector", received=name, expected=", ".join(known))
                self._detectors[name] = SpacyDetector(name.removeprefix("spacy:"))
            return self._detectors[name]

    def use_cross(self, encoder: CrossEncoder) -> None:
        """Re-rank with this one."""
        self._cross = encoder

    def put_full(self, record: GenerationRecord, encoder: FullEncoder) -> None:
        """Use this encoder for generations like this one, such as one that knows an evaluation's queries."""
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
