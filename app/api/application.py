"""The FastAPI application: routes, error answers, limits, metrics."""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from hyblink.app.access.audit import Audit
from hyblink.app.access.keys import ApiKey, KeyStore, RateLimits, Role, authorize, identify, is_loopback
from hyblink.app.access.oidc import TokenVerifier
from hyblink.app.api import schemas as models
from hyblink.app.api.answers import (
    BUSY,
    CONFLICT,
    ERRORS,
    NOT_FOUND,
    Authorization,
    Collection,
    bad_request,
    json_answer,
)
from hyblink.app.api.limits import BODY, BodyLimit, LoopbackHosts
from hyblink.app.api.routes.access import access_routes
from hyblink.app.api.routes.feedback import feedback_routes
from hyblink.app.api.routes.generations import generation_routes
from hyblink.app.api.routes.jobs import job_routes, queues_of
from hyblink.app.api.routes.retraining import retraining_routes
from hyblink.app.bootstrap import App
from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import (
    ConflictError,
    ForbiddenError,
    HyblinkError,
    NotFoundError,
    RateLimitedError,
    UserError,
)
from hyblink.app.core.logs import new_request_id, request_id
from hyblink.app.core.types.collections import Annotation, CollectionSpec, GenerationRecord
from hyblink.app.core.types.documents import BulkResult, StoreCounts
from hyblink.app.core.types.linking import Entity, LinkResult
from hyblink.app.core.types.search import EntityUse, SearchRequest, SearchResult
from hyblink.app.engines.catalog import check_name
from hyblink.app.jobs.celery_jobs import uses_celery
from hyblink.app.linking.annotation import Mentioned, mentioned
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.search.service import Vocabulary, WhyNot

_STORE_WAIT_S = 2.0
log = logging.getLogger(__name__)

KnowledgeBaseName = Annotated[str, Query(description="The knowledge base.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
EntityId = Annotated[str, Path(description="The entity's id.", min_length=1, max_length=512)]
DocumentId = Annotated[str, Path(description="The document's id.", min_length=1, max_length=512)]


def _error(error: HyblinkError) -> Response:
    headers = {}
    if error.status == 429:
        headers["Retry-After"] = str(math.ceil(getattr(error, "retry_after_s", 1)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    detail = {
        "code": error.code,
        "message": error.message,
        "received": error.received,
        "expected": error.expected,
    }
    if not isinstance(error, UserError) and error.status == 500:
        detail = {
            "code": error.code,
            "message": "the server's data is damaged; run `hyblink fsck`",
            "received": None,
            "expected": None,
        }
    return json_answer({"error": detail}, error.status, headers)


def _collection(spec: CollectionSpec, record: GenerationRecord, counts: StoreCounts) -> dict[str, object]:
    return {
        "name": spec.name,
        "kind": spec.kind,
        "analyzer": record.analyzer,
        "generation": record.id,
        "documents": counts.documents,
        "passages": counts.passages,
        "encoded": counts.encoded,
        "dense_encoder": record.dense_encoder,
        "vdr_encoder": record.vdr_encoder,
    }


class Metrics:
    """What /metrics shows."""

    def __init__(self, app: App) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hyblink_requests", "HTTP requests", ["route", "method", "status"], registry=self.registry
        )
        self.latency = Histogram("hyblink_request_seconds", "HTTP latency", ["route"], registry=self.registry)
        self.stages = Histogram("hyblink_search_stage_seconds", "Search stages", ["stage"], registry=self.registry)
        self.legs = Counter("hyblink_leg_failures", "Legs that failed or were late", ["signal"], registry=self.registry)
        self.documents = Counter("hyblink_documents", "Documents written", ["status"], registry=self.registry)
        self.links = Counter("hyblink_links", "Mentions by what became of them", ["reason"], registry=self.registry)
        self.searching = Gauge("hyblink_searches_running", "Searches in progress", registry=self.registry)
        self.linking = Gauge("hyblink_links_running", "Linking requests in progress", registry=self.registry)
        self.registry.register(Work(app))

    def searched(self, result: SearchResult) -> None:
        """Count a search's stages and failed legs."""
        for stage, value in result.timings_ms.items():
            self.stages.labels(stage).observe(value / 1e3)
        for report in result.legs:
            if report.error:
                self.legs.labels(report.signal.value).inc()

    def linked(self, result: LinkResult) -> None:
        """Count a linking request's stages and links."""
        for stage, value in result.timings_ms.items():
            self.stages.labels(f"link_{stage}").observe(value / 1e3)
        for one in (link for text in result.texts for link in text.links):
            self.links.labels(one.reason).inc()


class Work(Collector):
    """What waits and who works, looked up whenever metrics are asked for."""

    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Nothing where the store does not answer: /readyz tells."""
        try:
            found = queues_of(self._app)
        except HyblinkError as error:
            log.warning("no metrics of background work: %s", error)
            return
        waiting = GaugeMetricFamily("hyblink_passages_waiting", "Passages without vectors", labels=["collection"])
        for name, count in found["waiting"].items():
            waiting.add_metric([name], count)
        jobs = GaugeMetricFamily("hyblink_jobs", "Jobs that have not ended well, by state", labels=["state"])
        for state, count in found["jobs"].items():
            jobs.add_metric([state], count)
        queues = GaugeMetricFamily("hyblink_queue_tasks", "Tasks that wait for a worker", labels=["queue"])
        for name, count in found["queues"].items():
            queues.add_metric([name], count)
        stages = GaugeMetricFamily("hyblink_job_stages", "Open jobs by kind and stage", labels=["kind", "stage"])
        for one in found["stages"]:
            stages.add_metric([one["kind"], one["stage"]], one["jobs"])
        yield from (waiting, jobs, queues, stages)
        yield GaugeMetricFamily("hyblink_workers", "Live workers", value=len(found["workers"]))
        yield GaugeMetricFamily("hyblink_dead_letters", "Tasks that failed for good", value=found["dead_letters"])


_CALL: ContextVar[str] = ContextVar("call", default="")
"""One call of the API, by a name that its caller does not choose."""
_ACTS = frozenset({"/v1/collections", "/v1/jobs/{job_id}/cancel", "/v1/jobs/{job_id}/resume"})
"""Routes outside /v1/admin whose acts are audited."""


class _Slots:
    """At most so many requests of a kind at once; the next is told to come back."""

    def __init__(self, what: str, limit: int, gauge: Gauge) -> None:
        self._what = what
        self._slots = threading.BoundedSemaphore(limit)
        self._limit = limit
        self._gauge = gauge

    @contextmanager
    def one(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise RateLimitedError(
                f"too many {self._what} at once", expected=f"at most {self._limit}; retry in a second"
            )
        self._gauge.inc()
        try:
            yield
        finally:
            self._gauge.dec()
            self._slots.release()


def create_api(app: App, *, host: str | None = None) -> FastAPI:
    """The API over a wired application. `host` is the address it will listen on.

    Raises ForbiddenError for an address that others can reach while no API key exists.
    """
    settings = app.settings
    listening = host or settings.api.host
    keys = KeyStore(app.catalog.records())
    rates = RateLimits(settings.api.requests_per_minute)
    audit = Audit(app.catalog.records())
    tokens = TokenVerifier(settings.oidc) if settings.oidc.issuer else None
    open_door = is_loopback(listening) and settings.api.open_on_loopback
    if not is_loopback(listening) and tokens is None and not keys.any_active():
        raise ForbiddenError(
            "refusing to listen where others can reach it without API keys",
            received=listening,
            expected="a loopback address, a key made by `hyblink keys create --role admin`, or an oidc.issuer",
        )
    metrics = Metrics(app)
    slots = _Slots("searches", settings.api.max_concurrent_searches, metrics.searching)
    link_slots = _Slots("linking requests", settings.api.max_concurrent_links, metrics.linking)

    warm, stopped = threading.Event(), threading.Event()

    def warm_up(name: str) -> None:
        """Load a collection's encoders before they are asked."""
        try:
            engine = app.catalog.engine(name)
            record = engine.record
            app.encoders.bag(record.vdr_encoder).encode_query("warm up")
            if record.dense_dimension:
                app.encoders.full(record).encode_query("warm up")
        except HyblinkError as error:
            log.error("collection %s: %s", name, error)  # the others are served; /readyz tells

    def load(what: Callable[[], None], without: str) -> None:
        try:
            what()
        except HyblinkError as error:
            log.warning("%s: %s", without, error)  # each answer says so

    def begin() -> None:
        """Readiness waits for this, so that no first query does. A store that is away is waited for."""
        try:
            while not stopped.is_set():
                try:
                    names = app.catalog.names()
                except HyblinkError as error:
                    log.warning("the store does not answer yet: %s", error)
                    stopped.wait(_STORE_WAIT_S)
                    continue
                load(app.sweep, "what an earlier process left undone waits")
                for name in names:
                    warm_up(name)
                if settings.search.rerank:
                    load(lambda: app.encoders.cross().load(), "searches are not re-ranked")
                if settings.link.rerank and any(app.catalog.spec(name).kind == "entities" for name in names):
                    load(lambda: app.encoders.entity_cross().load(), "links are decided without a cross-encoder")
                break
        finally:
            warm.set()

    def sweep() -> None:
        """What a worker with --beat does, where there is no broker."""
        while not stopped.wait(settings.jobs.sweep_s):
            load(app.sweep, "what is to be done again waits")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        beginning = threading.Thread(target=begin, name="hyblink-warm", daemon=True)
        beginning.start()
        sweeping = threading.Thread(target=sweep, name="hyblink-sweep", daemon=True)
        if not uses_celery(settings):
            sweeping.start()
        yield
        stopped.set()
        if sweeping.is_alive():
            await run_in_threadpool(sweeping.join)

    api = FastAPI(
        title="hyblink",
        version="1",
        summary="Hybrid search over your own documents, with the reasons.",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        responses=ERRORS,
    )
    # An upload is stored as it comes, under a limit of its own.
    api.add_middleware(
        BodyLimit,
        limit=settings.api.max_body_bytes,
        others={"/v1/uploads": settings.jobs.max_upload_bytes},
    )
    if open_door:
        # An open door answers only to its own name, so that a web page cannot reach it by rebinding a DNS name.
        api.add_middleware(LoopbackHosts)

    @api.middleware("http")
    async def observe(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        mine = new_request_id(request.headers.get("x-request-id", ""))
        token, call = request_id.set(mine), _CALL.set(secrets.token_hex(8))
        try:
            response = await call_next(request)
        finally:
            request_id.reset(token)
            _CALL.reset(call)
        response.headers["X-Request-Id"] = mine
        route = getattr(request.scope.get("route"), "path", "unmatched")
        if request.method != "GET" and (route.startswith("/v1/admin/") or route in _ACTS):
            await run_in_threadpool(note_act, request, response.status_code, mine)
        metrics.requests.labels(route, request.method, str(response.status_code)).inc()
        metrics.latency.labels(route).observe(time.perf_counter() - started)
        return response

    def actor(header: str | None, status: int) -> str:
        if header is None and status != 401:
            return "open door"
        try:
            found = identify(keys, tokens, header or "")
        except HyblinkError:
            return "unknown"
        return f"key:{found.id}" if found.sha256 else f"token:{found.id} {found.note}"

    def note_act(request: Request, status: int, mine: str) -> None:
        by = actor(request.headers.get("authorization"), status)
        query = f"?{request.url.query}" if request.url.query else ""
        try:
            audit.add(by, f"{request.method} {request.url.path}{query}", str(status), mine)
        except HyblinkError as error:
            log.error("an act could not be kept in the audit log: %s", error)

    @api.exception_handler(HyblinkError)
    async def hyblink_error(_: Request, error: HyblinkError) -> Response:
        if not isinstance(error, UserError):
            log.error("%s: %s", error.code, error)
        return _error(error)

    @api.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return json_answer({"error": bad_request(error.errors()[0], request.headers.get("content-type"))}, 400)

    @api.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status_code, "bad_request")
        detail = {
            "code": code,
            "message": str(error.detail),
            "received": None,
            "expected": "see /openapi.json",
        }
        return json_answer({"error": detail}, error.status_code, dict(error.headers or {}))

    @api.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        log.error("unforeseen error", exc_info=error)
        detail = {
            "code": "internal_error",
            "message": "a fault of ours; the log has it",
            "received": None,
            "expected": None,
        }
        return json_answer({"error": detail}, 500)

    def allow(role: Role) -> Callable[..., None]:
        def check(
            authorization: Annotated[str | None, Header(description="`Bearer hyb_…`")] = None,
        ) -> None:
            allowed(authorization, role, None)

        return check

    def allowed(authorization: str | None, role: Role, collection: str | None) -> ApiKey | None:
        key = authorize(keys, authorization, role, collection, open_door=open_door, tokens=tokens)
        if key is not None:
            rates.take(key, _CALL.get())
            if key.max_bytes and (body := BODY.get()) is not None:
                body.lower(key.max_bytes)
        return key

    def on(collection: str, authorization: str | None, role: Role) -> str:
        allowed(authorization, role, check_name(collection))
        return collection

    def written(collection: str, result: BulkResult) -> Response:
        for item in result.items:
            metrics.documents.labels(item.status).inc()
        return json_answer(
            {
                "errors": result.errors,
                "generation": app.catalog.current(collection),
                "change": result.change,
                "items": [asdict(item) for item in result.items],
            }
        )

    def removed(result: BulkResult, otherwise: str) -> Response:
        item = result.items[0]
        if item.status != "deleted":
            raise NotFoundError(otherwise, received=item.id)
        return json_answer(asdict(item))

    def wanted(body: models.SearchBody, authorization: str | None) -> SearchRequest:
        """The request, with the query's entities where they are asked for."""
        request = body.request(settings.search)
        if body.generation is not None:
            on(body.collection, authorization, Role.ADMIN)
        if body.entities is None:
            return request
        use = body.entities
        kb = on(use.kb, authorization, Role.SEARCH)
        found = app.query_entities(kb, body.query, use.threshold, documents=body.collection, evidence=use.evidence)
        return replace(request, entities=EntityUse(found, use.mode, use.weight))

    @api.post(
        "/v1/search",
        tags=["search"],
        summary="Search a collection",
        responses={200: {"model": SearchResult}, **NOT_FOUND, **BUSY},
        response_model=None,
    )
    def search(body: models.SearchBody, authorization: Authorization = None) -> Response:
        key = allowed(authorization, Role.SEARCH, check_name(body.collection))
        with slots.one():
            result = app.search.search(body.collection, wanted(body, authorization))
        metrics.searched(result)
        if body.log:
            ranks = {str(hit.doc_id): hit.rank for hit in result.hits}
            by = "" if key is None else key.id
            search_id = app.feedback.shown(body.collection, body.query, ranks, generation=result.generation, by=by)
            result = replace(result, search_id=search_id)
        return json_answer(result)

    @api.post(
        "/v1/explain",
        tags=["search"],
        summary="Why is this document (not) there?",
        responses={200: {"model": WhyNot}, **NOT_FOUND, **BUSY},
        response_model=None,
    )
    def explain(body: models.ExplainBody, authorization: Authorization = None) -> Response:
        on(body.collection, authorization, Role.SEARCH)
        with slots.one():
            request = wanted(body, authorization)
            return json_answer(app.search.why_not(body.collection, request, body.document_id))

    @api.post(
        "/v1/vocabulary",
        tags=["search"],
        summary="A text read out over the VDR vocabulary, and what it shares with a passage",
        responses={200: {"model": Vocabulary}, **NOT_FOUND, **BUSY},
        response_model=None,
    )
    def vocabulary(body: models.VocabularyBody, authorization: Authorization = None) -> Response:
        on(body.collection, authorization, Role.SEARCH)
        with slots.one():
            return json_answer(app.search.vocabulary(body.collection, body.text, body.passage, body.top))

    @api.post(
        "/v1/documents:bulk",
        tags=["documents"],
        summary="Upsert documents, item by item",
        description=f"At most {settings.api.max_bulk_documents} documents and {settings.api.max_body_bytes} bytes. "
        "When it is answered, what was accepted is durable and the next search sees it.",
        responses={200: {"model": models.BulkAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def bulk(
        body: models.BulkBody, collection: Collection = "default", authorization: Authorization = None
    ) -> Response:
        on(collection, authorization, Role.INGEST)
        if app.ensure_collection(CollectionSpec(collection)).kind == "entities":
            raise ConflictError("the collection is a knowledge base", received=collection, expected="entities:bulk")
        return written(collection, app.documents.bulk(collection, body.documents))

    @api.get(
        "/v1/documents/{document_id:path}",
        tags=["documents"],
        summary="A document as it was sent",
        responses={200: {"model": models.DocumentAnswer}, **NOT_FOUND},
        response_model=None,
    )
    def get_document(
        document_id: DocumentId, collection: Collection = "default", authorization: Authorization = None
    ) -> Response:
        on(collection, authorization, Role.SEARCH)
        return json_answer(app.documents.get(collection, document_id))

    @api.delete(
        "/v1/documents/{document_id:path}",
        tags=["documents"],
        summary="Delete a document",
        responses={200: {"model": models.BulkItemAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def delete_document(
        document_id: DocumentId, collection: Collection = "default", authorization: Authorization = None
    ) -> Response:
        on(collection, authorization, Role.INGEST)
        return removed(app.documents.delete(collection, [document_id]), "no such document")

    @api.post(
        "/v1/link",
        tags=["linking"],
        summary="Link the mentions of texts to entities of a knowledge base",
        description=f"At most {settings.link.max_texts} texts of {settings.link.max_text_chars} characters and "
        f"{settings.link.max_mentions} mentions. Offsets are code points of the text as sent.",
        responses={200: {"model": LinkResult}, **NOT_FOUND, **BUSY},
        response_model=None,
    )
    def link(body: models.LinkBody, authorization: Authorization = None) -> Response:
        on(body.collection, authorization, Role.SEARCH)
        if body.evidence is not None:
            on(body.evidence.collection, authorization, Role.SEARCH)
        with link_slots.one():
            request = body.request()
            if body.evidence is not None:
                request = app.with_evidence(request, body.evidence.collection, body.evidence.hits)
            result = app.linker.link(body.collection, request)
        metrics.linked(result)
        return json_answer(result)

    @api.post(
        "/v1/entities:bulk",
        tags=["linking"],
        summary="Upsert entities, item by item",
        description=f"At most {settings.api.max_bulk_documents} entities and {settings.api.max_body_bytes} bytes. "
        "When it is answered, what was accepted is durable and a candidate for the next request.",
        responses={200: {"model": models.BulkAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def bulk_entities(
        body: models.EntitiesBody, collection: KnowledgeBaseName = "entities", authorization: Authorization = None
    ) -> Response:
        on(collection, authorization, Role.INGEST)
        app.entities.check(app.ensure_collection(entity_spec(collection)))
        return written(collection, app.entities.bulk(collection, body.entities))

    @api.get(
        "/v1/entities/{entity_id:path}/mentions",
        tags=["linking"],
        summary="Where an entity is mentioned, and beside which others",
        responses={200: {"model": Mentioned}, **NOT_FOUND},
        response_model=None,
    )
    def entity_mentions(
        entity_id: EntityId,
        documents: Annotated[
            str, Query(description="The annotated collection.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
        ] = "default",
        limit: Annotated[int, Query(ge=1, le=1000, description="Documents and neighbours shown.")] = 20,
        authorization: Authorization = None,
    ) -> Response:
        on(documents, authorization, Role.SEARCH)
        check_text(entity_id, "entity id")
        return json_answer(mentioned(app.catalog.present(documents).snapshot, entity_id, limit))

    @api.get(
        "/v1/entities/{entity_id:path}",
        tags=["linking"],
        summary="An entity as it was sent",
        responses={200: {"model": Entity}, **NOT_FOUND},
        response_model=None,
    )
    def get_entity(
        entity_id: EntityId, collection: KnowledgeBaseName = "entities", authorization: Authorization = None
    ) -> Response:
        on(collection, authorization, Role.SEARCH)
        return json_answer(app.entities.get(collection, entity_id))

    @api.delete(
        "/v1/entities/{entity_id:path}",
        tags=["linking"],
        summary="Remove an entity from every generation",
        responses={200: {"model": models.BulkItemAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def remove_entity(
        entity_id: EntityId, collection: KnowledgeBaseName = "entities", authorization: Authorization = None
    ) -> Response:
        on(collection, authorization, Role.INGEST)
        return removed(app.entities.remove(collection, [entity_id]), "no such entity")

    @api.get(
        "/v1/collections",
        tags=["collections"],
        summary="Collections and what they hold",
        responses={200: {"model": models.CollectionsAnswer}},
        response_model=None,
    )
    def collections(authorization: Authorization = None) -> Response:
        key = allowed(authorization, Role.SEARCH, None)
        answers = []
        for name in app.catalog.names():
            if key is not None and not key.allows(Role.SEARCH, name):
                continue
            engine = app.catalog.engine(name)
            counts = engine.snapshot().reader.counts()
            answers.append(_collection(app.catalog.spec(name), engine.record, counts))
        return json_answer({"collections": answers})

    @api.post(
        "/v1/collections",
        tags=["collections"],
        summary="Make a collection",
        status_code=201,
        responses={201: {"model": models.CollectionAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def create_collection(body: models.CollectionBody, authorization: Authorization = None) -> Response:
        on(body.name, authorization, Role.ADMIN)
        spec = body.spec()
        if body.annotate_with is not None:
            app.catalog.spec(on(body.annotate_with, authorization, Role.SEARCH))
        record = app.new_record(spec)
        app.catalog.create(spec, record)
        if body.annotate_with is not None:
            app.annotate_always(spec.name, Annotation(body.annotate_with))
        return json_answer(_collection(spec, record, StoreCounts(0, 0, 0, 0)), 201)

    api.include_router(job_routes(app, allowed))
    api.include_router(feedback_routes(app, allowed))
    api.include_router(generation_routes(app, allowed))
    api.include_router(retraining_routes(app, allowed))
    api.include_router(access_routes(keys, audit, allowed))

    @api.get("/healthz", tags=["operation"], summary="Is the process alive?")
    def healthz() -> models.HealthAnswer:
        return models.HealthAnswer(status="ok")

    @api.get(
        "/readyz",
        tags=["operation"],
        summary="Can requests be answered?",
        responses={200: {"model": models.ReadyAnswer}, 503: {"model": models.ReadyAnswer}},
        response_model=None,
    )
    def readyz() -> Response:
        problems: list[str] = [] if warm.is_set() else ["encoders are being loaded"]
        states: dict[str, str] = {}
        degraded: list[str] = []
        try:
            names = app.catalog.names()
        except HyblinkError as error:
            names = []
            problems.append(f"the store: {error.code}")
        for name in names:
            try:
                engine = app.catalog.engine(name)
                engine.snapshot()
                states[name] = app.catalog.current(name)
            except HyblinkError as error:
                problems.append(f"{name}: {error.code}")
                continue
            try:
                if engine.record.dense_dimension:
                    app.encoders.full(engine.record)
            except HyblinkError as error:
                degraded.append(f"{name}: {error.code}")  # words are still found
        ready = not problems
        answer = {
            "ready": ready,
            "problems": problems,
            "degraded": degraded,
            "collections": states if open_door else {},
        }
        return json_answer(answer, 200 if ready else 503)

    @api.get(
        "/metrics",
        tags=["operation"],
        summary="Prometheus metrics",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
        dependencies=[Depends(allow(Role.SEARCH))],
    )
    def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = get_openapi(
                title=api.title, version=api.version, summary=api.summary, routes=api.routes, description=None
            )
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
    return api
