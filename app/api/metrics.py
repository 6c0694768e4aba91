"""The Prometheus metrics of /metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hyblink.app.application import App
from hyblink.app.core.errors import HyblinkError
from hyblink.app.core.types.linking import LinkResult
from hyblink.app.core.types.search import SearchResult
from hyblink.app.operations.queues import queues_of

log = logging.getLogger(__name__)


class Metrics:
    """The metrics of one API process."""

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
        self.registry.register(BackgroundWork(app))

    def text(self, visible: Callable[[str], bool]) -> bytes:
        """All metrics in Prometheus' text format, of collections only the visible ones."""
        token = _VISIBLE.set(visible)
        try:
            return generate_latest(self.registry)
        finally:
            _VISIBLE.reset(token)

    def searched(self, result: SearchResult) -> None:
        """Record a search: the time of its stages, and its failed legs."""
        for stage, value in result.timings_ms.items():
            self.stages.labels(stage).observe(value / 1e3)
        for report in result.legs:
            if report.error:
                self.legs.labels(report.signal.value).inc()

    def linked(self, result: LinkResult) -> None:
        """Record a linking request: the time of its stages, and its links by outcome."""
        for stage, value in result.timings_ms.items():
            self.stages.labels(f"link_{stage}").observe(value / 1e3)
        for link in (link for text in result.texts for link in text.links):
            self.links.labels(link.reason).inc()


_VISIBLE: ContextVar[Callable[[str], bool]] = ContextVar("visible", default=lambda _: True)
"""Which collections the caller of /metrics may know."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """The request's method; `other` for those that clients invent.

    >>> method_label("GET"), method_label("PWN123")
    ('GET', 'other')
    """
    return method if method in _METHODS else "other"


class BackgroundWork(Collector):
    """Collects metrics of background work (queues, jobs, workers) when /metrics is requested."""

    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics; none if the store does not answer (/readyz reports that)."""
        try:
            found = queues_of(self._app)
        except HyblinkError as error:
            log.warning("no metrics of background work: %s", error)
            return
        waiting = GaugeMetricFamily("hyblink_passages_waiting", "Passages without vectors", labels=["collection"])
        visible = _VISIBLE.get()
        for name, count in found["waiting"].items():
            if not visible(name):
                continue
            waiting.add_metric([name], count)
        jobs = GaugeMetricFamily("hyblink_jobs", "Jobs that have not ended well, by state", labels=["state"])
        for state, count in found["jobs"].items():
            jobs.add_metric([state], count)
        queues = GaugeMetricFamily("hyblink_queue_tasks", "Tasks that wait for a worker", labels=["queue"])
        for name, count in found["queues"].items():
            queues.add_metric([name], count)
        stages = GaugeMetricFamily("hyblink_job_stages", "Open jobs by kind and stage", labels=["kind", "stage"])
        for stage in found["stages"]:
            stages.add_metric([stage["kind"], stage["stage"]], stage["jobs"])
        yield from (waiting, jobs, queues, stages)
        yield GaugeMetricFamily("hyblink_workers", "Live workers", value=len(found["workers"]))
        yield GaugeMetricFamily("hyblink_dead_letters", "Tasks that failed for good", value=found["dead_letters"])
