"""Bodies for texts to link, and for entities."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)

from hyblink.app.api.schemas.common import StrictBody
from hyblink.app.api.schemas.signals import LinkSignal
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.names import COLLECTION_PATTERN
from hyblink.app.core.types.linking import LinkRequest, Text


class SpanBody(StrictBody):
    """The span of a given mention, in code points of its text; `end` is exclusive."""

    start: StrictInt = Field(ge=0, le=100_000_000)
    end: StrictInt = Field(ge=0, le=100_000_000)
    text: StrictStr | None = Field(
        None, max_length=100_000, description="What stands there; refused where it does not, as with UTF-16 offsets."
    )


class TextBody(StrictBody):
    """A text to link, optionally with given mentions."""

    text: StrictStr = Field(max_length=10_000_000)
    mentions: list[SpanBody] | None = Field(None, max_length=100_000, description="Instead of detecting them.")
    exclude: list[StrictStr] = Field([], max_length=100, description="Entities that this text's mentions cannot mean.")


class ContextBody(StrictBody):
    """A mention with the text before and after it."""

    context_left: StrictStr = Field("", max_length=1_000_000)
    mention: StrictStr = Field(min_length=1, max_length=100_000)
    context_right: StrictStr = Field("", max_length=1_000_000)


class EvidenceBody(StrictBody):
    """A collection that is searched with each text; the entities of the top documents are evidence for the links."""

    collection: StrictStr = Field("default", description="Annotated documents.", pattern=COLLECTION_PATTERN)
    hits: StrictInt = Field(10, ge=1, le=100, description="Documents looked at for each text.")
    weight: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False, strict=True)] = Field(
        2.0, description="What an entity gains in utility that all of them mention."
    )


class LinkBody(StrictBody):
    """Texts to link: one of `text`, `texts` and `mentions`."""

    collection: StrictStr = Field("entities", description="The knowledge base.", pattern=COLLECTION_PATTERN)
    text: StrictStr | None = Field(None, max_length=10_000_000, description="One text.")
    texts: list[TextBody | StrictStr] | None = Field(None, min_length=1, max_length=10_000, description="Several.")
    mentions: list[ContextBody] | None = Field(
        None, min_length=1, max_length=100_000, description="Mentions in their contexts; each is a text of its own."
    )
    candidates: StrictInt | None = Field(None, ge=1, le=1000, description="Candidates of each mention.")
    shown: StrictInt = Field(5, ge=0, le=1000, description="Candidates shown of each mention, rejected ones too.")
    detectors: list[StrictStr] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="What finds mentions, together: `dictionary`, `elq`, `spacy:PIPELINE` (one that is installed).",
    )
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Links of less probability become NIL; by default the knowledge base's own threshold."
    )
    rerank: StrictBool | None = Field(None, description="Let the cross-encoder read the best candidates.")
    budget_ms: Annotated[float, Field(ge=0, le=600_000, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Time for it; mentions that it does not reach are decided without."
    )
    coherence: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="How much the entities of neighbouring mentions support each other."
    )
    joint: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None = Field(
        None,
        description="Decide jointly which of the spans that `elq` thinks possible are mentions and what they mean: the "
        "least joint probability. Of overlapping spans the most probable stays.",
    )
    evidence: EvidenceBody | None = Field(None, description="Let what is found for each text speak for entities.")
    signals: list[LinkSignal] | None = Field(
        None, min_length=1, max_length=4, description="What proposes and scores candidates; all of them by default."
    )
    exclude: list[StrictStr] = Field([], max_length=1000, description="Entities that no mention can mean.")
    filter: dict[str, Any] | None = Field(None, description='Such as {"term": {"kind": "module"}}.')

    def request(self) -> LinkRequest:
        """Return the body as a `LinkRequest`. Raises InvalidInputError unless exactly one form of input is given."""
        given = [name for name in ("text", "texts", "mentions") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidInputError("one form of input is wanted", received=given, expected="text, texts or mentions")
        texts = [Text(self.text)] if self.text is not None else []
        texts += [Text(text) if isinstance(text, str) else _text(text) for text in self.texts or ()]
        for mention in self.mentions or ():
            left = len(mention.context_left)
            span = (left, left + len(mention.mention))
            texts.append(Text(mention.context_left + mention.mention + mention.context_right, (span,)))
        return LinkRequest(
            texts=tuple(texts),
            candidates=self.candidates,
            shown=self.shown,
            detectors=None if self.detectors is None else tuple(self.detectors),
            threshold=self.threshold,
            rerank=self.rerank,
            budget_ms=self.budget_ms,
            coherence=self.coherence,
            joint=self.joint,
            evidence=None if self.evidence is None else self.evidence.weight,
            exclude=tuple(self.exclude),
            filter=self.filter,
            signals=None if self.signals is None else tuple(self.signals),
        )


def _text(body: TextBody) -> Text:
    for mention in body.mentions or ():
        there = body.text[mention.start : mention.end]
        if mention.text is not None and there != mention.text:
            raise InvalidInputError(
                "a mention's text is not what stands there",
                received=f"{mention.text!r} at {mention.start}:{mention.end}, where {there[:60]!r} is",
                expected="offsets in code points of the text (not UTF-16 units or bytes), end exclusive",
            )
    spans = None if body.mentions is None else tuple((mention.start, mention.end) for mention in body.mentions)
    return Text(body.text, spans, tuple(body.exclude))


class EntitiesBody(StrictBody):
    """Entities to upsert. Each is checked by itself: a bad one is reported in its place, the others are stored."""

    entities: list[Any] = Field(
        description="Objects with id, title, description, aliases, kind, world, lang, metadata.",
        json_schema_extra={
            "items": {
                "type": "object",
                "required": ["id", "title"],
                "properties": {
                    "id": {"type": "string", "minLength": 1, "maxLength": 512},
                    "title": {"type": "string", "minLength": 1, "maxLength": 512},
                    "description": {"type": "string"},
                    "aliases": {"type": "array", "maxItems": 1000, "items": {"type": "string"}},
                    "kind": {"type": "string"},
                    "world": {"type": "string"},
                    "lang": {"type": "string"},
                    "metadata": {"type": "object"},
                },
            }
        },
    )
