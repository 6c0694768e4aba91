"""Request and answer bodies. Requests are strict: unknown fields and wrong types are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
    StrictStr,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.collections import CollectionSpec, GenerationRecord
from hyblink.app.core.types.linking import LINK_SIGNALS, LinkRequest, Text
from hyblink.app.core.types.ranking import (
    DEFAULT_SIGNALS,
    FusionName,
    NormalizationName,
    RerankRequest,
    Signal,
    VdrMode,
)
from hyblink.app.core.types.search import SearchRequest
from hyblink.ranker.signals.registry import SIGNALS, proposing

COLLECTION = Field("default", description="The collection that is asked.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")


class _OneOf:
    """Only signals that are known when a request comes; OpenAPI lists those known when it is asked for."""

    def __init__(self, known: Callable[[], Sequence[Signal]]) -> None:
        self._known = known

    def _check(self, signal: Signal) -> Signal:
        if signal not in self._known():
            raise ValueError(f"unknown signal {signal!r}; expected one of {', '.join(self._known())}")
        return signal

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema, handler
        return {"type": "string", "enum": [signal.value for signal in self._known()]}


Leg = Annotated[Signal, _OneOf(proposing)]
AnySignal = Annotated[Signal, _OneOf(lambda: [row.name for row in SIGNALS.values()])]
LinkSignal = Annotated[Signal, _OneOf(lambda: LINK_SIGNALS)]
Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False, strict=True)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RerankBody(_Body):
    """How much to re-rank."""

    top: StrictInt | None = Field(None, ge=1, le=10_000, description="The first so many documents.")
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Time for it; what was not reached keeps its order after the rest."
    )


class EntitiesUseBody(_Body):
    """Link the query, and use what it mentions: documents are annotated by `hyblink annotate`."""

    kb: StrictStr = Field("entities", description="The knowledge base.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    mode: Literal["boost", "filter"] = Field(
        "boost", description="Add to documents that mention them, or leave only those. Nothing where none is mentioned."
    )
    weight: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)] = Field(
        0.2, description="How much they add, beside the signals' weights."
    )
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Least probability of a link; by default the knowledge base's own."
    )
    evidence: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)] = Field(
        0.0, description="How much the entities of the best documents count for what the query mentions."
    )


class SearchBody(_Body):
    """A search."""

    query: StrictStr = Field(min_length=1, max_length=100_000, description="What is looked for.")
    collection: StrictStr = COLLECTION
    k: StrictInt = Field(10, ge=1, le=100_000, description="Documents on the page.")
    offset: StrictInt = Field(0, ge=0, le=100_000, description="Documents before the page.")
    candidates: StrictInt | None = Field(
        None, ge=1, le=100_000, description="Passages that each leg proposes. Pages are cut from their union."
    )
    signals: list[Leg] = Field(list(DEFAULT_SIGNALS), min_length=1, max_length=100, description="The legs to run.")
    filter: dict[str, Any] | None = Field(
        None, description='Such as {"term": {"kind": "function"}}; see docs/search.md.'
    )
    facets: list[StrictStr] = Field([], max_length=20, description="Metadata keys to count over the candidates.")
    explain: StrictBool = Field(False, description="Add each token's contribution to every signal.")
    highlight: StrictBool = Field(True, description="Add the spans where the query's words stand.")
    passages_per_document: StrictInt = Field(3, ge=1, le=20, description="Best passages shown of each document.")
    deadline_ms: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Time that the legs have together."
    )
    fusion: FusionName | None = Field(None, description="Instead of the ranking profile's.")
    normalization: NormalizationName | None = Field(None, description="Instead of the ranking profile's.")
    weights: dict[AnySignal, Weight] | None = Field(None, description="Instead of the ranking profile's.")
    vdr: VdrMode | None = Field(
        None,
        description="What the VDR signal multiplies. `full`: encoded query, encoded passage; `alpha`: the query's own "
        "tokens, encoded passage; `beta`: encoded query, the passage's bag of tokens; `bag`: both as bags; `auto`.",
    )
    generation: StrictStr | None = Field(
        None, pattern=r"^g\d{6}$", description="Ask this generation instead of the current one; for administrators."
    )
    log: StrictBool = Field(
        False, description="Keep query and page, so that clicks can refer to it by the answer's `search_id`."
    )
    entities: EntitiesUseBody | None = Field(
        None, description="Boost or filter by the entities that the query mentions."
    )
    rerank: RerankBody | StrictBool | None = Field(
        None,
        description="Re-rank by the cross-encoder: true, or how much; false for not at all; else as the server is set.",
    )

    def request(self, settings: SearchSettings) -> SearchRequest:
        """The use case's form of the search."""
        wanted = settings.rerank if self.rerank is None else self.rerank
        body = wanted if isinstance(wanted, RerankBody) else RerankBody()
        rerank = RerankRequest(body.top or settings.rerank_top, body.budget_ms or settings.rerank_budget_ms)
        return SearchRequest(
            query=self.query,
            k=self.k,
            offset=self.offset,
            candidates=self.candidates or settings.candidates,
            signals=tuple(self.signals),
            filter=self.filter,
            facets=tuple(self.facets),
            explain=self.explain,
            highlight=self.highlight,
            passages_per_document=self.passages_per_document,
            deadline_ms=self.deadline_ms,
            fusion=self.fusion,
            normalization=self.normalization,
            weights=self.weights,
            vdr=self.vdr,
            rerank=rerank if wanted else None,
            generation=self.generation,
        )


class ExplainBody(SearchBody):
    """A search, and a document: where does it stand, and where was it lost?"""

    document_id: StrictStr = Field(min_length=1, max_length=512)


class VocabularyBody(_Body):
    """A text to read out over the vocabulary, alone or against a passage."""

    text: StrictStr = Field(min_length=1, max_length=100_000)
    passage: StrictStr | None = Field(None, min_length=1, max_length=100_000, description="What it is compared with.")
    collection: StrictStr = COLLECTION
    top: StrictInt = Field(50, ge=1, le=1000, description="Tokens shown.")


class BulkBody(_Body):
    """Documents to upsert. Each is checked by itself: a bad one is reported in its place, the others are stored."""

    documents: list[Any] = Field(
        description="Objects with id, title, text, lang, metadata.",
        json_schema_extra={
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string", "minLength": 1, "maxLength": 512},
                    "title": {"type": "string", "maxLength": 4096},
                    "text": {"type": "string"},
                    "lang": {"type": "string"},
                    "metadata": {"type": "object"},
                },
            }
        },
    )


class SpanBody(_Body):
    """A given mention: code points of its text, `end` exclusive."""

    start: StrictInt = Field(ge=0, le=100_000_000)
    end: StrictInt = Field(ge=0, le=100_000_000)
    text: StrictStr | None = Field(
        None, max_length=100_000, description="What stands there; refused where it does not, as with UTF-16 offsets."
    )


class TextBody(_Body):
    """A text to link, with its mentions where they are known."""

    text: StrictStr = Field(max_length=10_000_000)
    mentions: list[SpanBody] | None = Field(None, max_length=100_000, description="Instead of detecting them.")
    exclude: list[StrictStr] = Field([], max_length=100, description="Entities that this text's mentions cannot mean.")


class ContextBody(_Body):
    """A mention with what stands before and after it."""

    context_left: StrictStr = Field("", max_length=1_000_000)
    mention: StrictStr = Field(min_length=1, max_length=100_000)
    context_right: StrictStr = Field("", max_length=1_000_000)


class EvidenceBody(_Body):
    """Documents that are searched with each text; the entities they are annotated with are evidence."""

    collection: StrictStr = Field("default", description="Annotated documents.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    hits: StrictInt = Field(10, ge=1, le=100, description="Documents looked at for each text.")
    weight: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False, strict=True)] = Field(
        2.0, description="What an entity gains in utility that all of them mention."
    )


class LinkBody(_Body):
    """Texts to link: one of `text`, `texts` and `mentions`."""

    collection: StrictStr = Field("entities", description="The knowledge base.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
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
        """The use case's form. Raises InvalidInputError unless exactly one of the three forms is given."""
        given = [name for name in ("text", "texts", "mentions") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidInputError("one form of input is wanted", received=given, expected="text, texts or mentions")
        texts = [Text(self.text)] if self.text is not None else []
        texts += [Text(one) if isinstance(one, str) else _text(one) for one in self.texts or ()]
        for one in self.mentions or ():
            left = len(one.context_left)
            span = (left, left + len(one.mention))
            texts.append(Text(one.context_left + one.mention + one.context_right, (span,)))
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
    for one in body.mentions or ():
        if one.text is not None and body.text[one.start : one.end] != one.text:
            raise InvalidInputError(
                "a mention's text is not what stands there",
                received=f"{one.text!r} at {one.start}:{one.end}, where {body.text[one.start : one.end][:60]!r} is",
                expected="offsets in code points of the text (not UTF-16 units or bytes), end exclusive",
            )
    spans = None if body.mentions is None else tuple((one.start, one.end) for one in body.mentions)
    return Text(body.text, spans, tuple(body.exclude))


class EntitiesBody(_Body):
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


class CollectionBody(_Body):
    """A collection to make."""

    name: StrictStr = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    analyzer: Literal["english", "standard"] = "english"
    dense_encoder: Literal["default", "none"] = Field(
        "default", description="`none` makes a collection without vectors."
    )
    dense_index: Literal["auto", "flat", "hnsw", "ivf,sq8", "ivf,pq", "knn"] = "auto"
    chunk_chars: StrictInt = Field(
        1200, ge=0, le=100_000, description="Characters of a passage; 0 keeps documents whole."
    )
    chunk_overlap_chars: StrictInt = Field(150, ge=0, le=50_000)
    kind: Literal["passages", "entities"] = Field(
        "passages", description="`entities` makes a knowledge base: entities are kept whole, whatever chunk_chars says."
    )

    annotate_with: StrictStr | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="A knowledge base: documents are annotated with its entities as they come.",
    )

    def spec(self) -> CollectionSpec:
        """The collection's choices."""
        chosen = self.model_dump(exclude={"annotate_with"})
        if self.kind == "entities":
            chosen |= {"chunk_chars": 0, "chunk_overlap_chars": 0}
        return CollectionSpec(**chosen)


class ErrorDetail(BaseModel):
    """What went wrong. `code` is stable."""

    code: str
    message: str
    received: str | None = None
    expected: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class CollectionAnswer(BaseModel):
    """A collection and what it holds."""

    name: str
    kind: Literal["passages", "entities"]
    analyzer: str
    generation: str
    documents: int
    passages: int
    encoded: int
    dense_encoder: str
    vdr_encoder: str


class CollectionsAnswer(BaseModel):
    """All collections that the caller may search."""

    collections: list[CollectionAnswer]


class BulkItemAnswer(BaseModel):
    """The fate of one document, in the request's order."""

    id: str
    status: Literal["created", "updated", "unchanged", "deleted", "not_found", "rejected"]
    passages: int
    code: str
    message: str


class BulkAnswer(BaseModel):
    """A bulk request's outcome. The next search sees all of it."""

    errors: bool
    generation: str
    change: int
    items: list[BulkItemAnswer]


class DocumentAnswer(BaseModel):
    """A document as it was sent."""

    id: str
    title: str
    text: str
    lang: str
    metadata: dict[str, Any]


class JobBody(_Body):
    """An ingestion job: one of `upload`, `folder`, `package` and `url` is read into a collection."""

    kind: Literal["ingest"] = "ingest"
    collection: StrictStr = COLLECTION
    upload: StrictStr = Field("", max_length=100, description="The id of an upload.")
    folder: StrictStr = Field("", max_length=4096, description="A file or folder on the server, below `jobs.roots`.")
    package: StrictStr = Field("", max_length=200, description="An installed Python package; `python` for its library.")
    url: StrictStr = Field(
        "", max_length=2000, description="A file on another server, one of `jobs.url_hosts`; http or https."
    )
    format: StrictStr | None = Field(
        None, max_length=20, description="jsonl, csv, tsv, markdown, text, html, pdf, beir."
    )
    columns: dict[Literal["id", "title", "text"], StrictStr] | None = Field(
        None, description="Which fields hold the id, the title and the text."
    )
    whole: StrictBool = Field(False, description="Do not cut documents (a new collection only).")
    analyzer: StrictStr = Field("english", max_length=20, description="english or standard (a new collection only).")
    dense_index: StrictStr = Field("auto", max_length=20, description="The dense index (a new collection only).")
    no_dense: StrictBool = Field(False, description="No vectors (a new collection only).")

    def params(self) -> dict[str, Any]:
        """What the job keeps of it."""
        return self.model_dump(exclude={"kind", "collection"})


class JudgementBody(_Body):
    """How well a document answers a query."""

    query: StrictStr = Field(min_length=1, max_length=2000)
    document_id: StrictStr = Field(min_length=1, max_length=512)
    grade: StrictInt = Field(ge=0, le=3, description="0: not at all, to 3: perfectly.")


class JudgementsBody(_Body):
    """Judgements of a collection."""

    collection: StrictStr = COLLECTION
    judgements: list[JudgementBody] = Field(max_length=10_000)


class ClickBody(_Body):
    """A click."""

    search_id: StrictStr = Field(min_length=1, max_length=100, description="Of the answer to a search with `log`.")
    document_id: StrictStr = Field(min_length=1, max_length=512)


class StoredAnswer(BaseModel):
    """How many were stored."""

    stored: int


class QrelsAnswer(BaseModel):
    """Queries by id, and grades by query and document."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


class ClickAnswer(BaseModel):
    """The rank at which the document stood."""

    rank: int


class FromClicksAnswer(BaseModel):
    """What became of a click log; `examination` is how often each rank is looked at, the first being 1."""

    searches: int
    clicks: int
    judged: int
    examination: list[float]


class KeyBody(_Body):
    """A key to make."""

    role: Literal["search", "ingest", "admin"]
    collections: list[StrictStr] = Field(default_factory=list, max_length=1000, description="Only these; empty: all.")
    note: StrictStr = Field("", max_length=200, description="Whose it is.")
    per_minute: StrictInt = Field(0, ge=0, le=1_000_000, description="Requests a minute; 0: as the server is set.")
    max_bytes: StrictInt = Field(0, ge=0, le=2**40, description="Largest body; 0: as the server is set.")


class WhoAnswer(BaseModel):
    """A caller's key: what it may do, in which collections (none named: all). No key at an open door."""

    key: str
    role: Literal["search", "ingest", "admin"]
    collections: list[str]
    note: str


class KeyAnswer(BaseModel):
    """A key without its secret."""

    id: str
    role: str
    created: str
    collections: list[str]
    revoked: bool
    note: str
    per_minute: int
    max_bytes: int


class KeysAnswer(BaseModel):
    """Keys."""

    keys: list[KeyAnswer]


class NewKeyAnswer(BaseModel):
    """A key with its secret, shown this once."""

    key: str


class ActAnswer(BaseModel):
    """An administrator's act."""

    id: str
    at: str
    by: str
    act: str
    outcome: str
    request_id: str


class AuditAnswer(BaseModel):
    """Acts, the newest first."""

    acts: list[ActAnswer]


class RebuildBody(_Body):
    """A generation to build."""

    collection: StrictStr = COLLECTION
    note: StrictStr = Field("", max_length=200, description="Why.")


class GateBody(_Body):
    """What a candidate has to show. Bounds are one-sided, with a confidence of 95 %, over paired differences."""

    worse: float = Field(0.02, ge=0, le=1, description="With all signals nDCG@10 may fall by at most so much.")
    gain: float = Field(
        0.0, ge=-1, le=1, description="By the trained signal alone it rises by more, on held-out questions."
    )
    least_overlap: float = Field(
        0.5, ge=0, le=1, description="Least mean rank-biased overlap of the first ten documents with today's."
    )
    least_judged: StrictInt = Field(
        20, ge=0, le=10_000, description="With fewer judged queries a person has to approve it."
    )


class PlanBody(_Body):
    """What a retraining does."""

    collection: StrictStr = COLLECTION
    target: Literal["vdr"] = Field("vdr", description="What is trained anew: the encoder of term weights.")
    options: dict[StrictStr, StrictStr] = Field(
        default_factory=dict, max_length=50, description="Changes of the recipe `vdr_again`, such as `steps`."
    )
    rows: StrictInt = Field(2000, ge=1, le=100_000, description="Most generated questions that are learned from.")
    held_out: StrictInt = Field(400, ge=0, le=10_000, description="Most generated questions that are held out.")
    clicks: StrictBool = Field(True, description="Learn from clicks as well (`hyblink judgements clicks`).")
    days: float = Field(0.0, ge=0, le=36_600, description="Only from clicks of so many days; 0: of all.")
    publish: Literal["approve", "auto"] = Field(
        "approve", description="`auto`: what passes the gate answers at once, if enough queries are judged."
    )
    gate: GateBody = GateBody()

    def params(self) -> dict[str, Any]:
        """What the job keeps of it."""
        return self.model_dump(exclude={"collection", "every_hours"})


class RetrainBody(PlanBody):
    """A retraining."""


class ScheduleBody(PlanBody):
    """A retraining again and again."""

    every_hours: float = Field(ge=0.25, le=8784, description="Hours from one to the next.")


class ScheduleAnswer(BaseModel):
    """When a collection's encoder is trained anew, and how."""

    collection: str
    every_hours: float
    plan: dict[str, Any]
    by: str
    next: str


class ModelAnswer(BaseModel):
    """A trained model."""

    name: str
    kind: str
    recipe: str
    parent: str
    created: str
    promoted: bool


class ModelsAnswer(BaseModel):
    """Trained models."""

    models: list[ModelAnswer]


class GenerationsAnswer(BaseModel):
    """Generations, and which one answers."""

    current: str
    generations: list[GenerationRecord]


class UploadAnswer(BaseModel):
    """A stored file."""

    id: str
    name: str
    bytes: int
    sha256: str


class JobAnswer(BaseModel):
    """A job: what was asked for, how far it is, how it ended."""

    id: str
    kind: str
    collection: str
    params: dict[str, Any]
    by: str
    created: str
    state: Literal["queued", "running", "waiting", "cancelling", "cancelled", "done", "refused", "failed"]
    stage: str
    message: str
    progress: dict[str, Any]
    result: dict[str, Any]
    error: str
    attempts: int
    started: str
    ended: str


class JobsAnswer(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobAnswer]


class RejectAnswer(BaseModel):
    """A row that was not taken."""

    file: str
    line: int
    code: str
    message: str
    raw: str


class RejectsAnswer(BaseModel):
    """Rows that a job has rejected."""

    rejects: list[RejectAnswer]


class WorkerAnswer(BaseModel):
    """A live worker."""

    queues: list[str]
    device: str
    pid: int
    silent_s: float


class StageAnswer(BaseModel):
    """How many open jobs of a kind are in a stage."""

    kind: str
    stage: str
    jobs: int


class QueuesAnswer(BaseModel):
    """What is at work, and what waits."""

    queues: dict[str, int]
    stages: list[StageAnswer]
    workers: list[WorkerAnswer]
    jobs: dict[str, int]
    waiting: dict[str, int]
    dead_letters: int


class DeadLetterAnswer(BaseModel):
    """A task that failed for good."""

    id: str
    task: str
    args: list[str]
    error: str
    detail: str
    at: str


class DeadLettersAnswer(BaseModel):
    """Tasks that failed for good, the newest first."""

    dead_letters: list[DeadLetterAnswer]


class HealthAnswer(BaseModel):
    """The process is alive."""

    status: Literal["ok"]


class ReadyAnswer(BaseModel):
    """Whether requests can be answered, and what is missing where they cannot."""

    ready: bool
    problems: list[str]
    degraded: list[str] = Field(default_factory=list, description="Collections whose encoder is missing: no vectors.")
    collections: dict[str, str]
