"""The `App` object, which holds the parts of the application. `bootstrap.build` creates it; `operations` use it."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.app.core.settings import Settings
from hyblink.app.encoders.pool import EncoderPool
from hyblink.app.engines.catalog import Catalog
from hyblink.app.feedback.feedback import Feedback
from hyblink.app.jobs.celery_jobs import CeleryJobs
from hyblink.app.jobs.claims import Claims
from hyblink.app.jobs.in_process import InProcessJobs
from hyblink.app.jobs.records import JobRecords
from hyblink.app.jobs.schedules import Schedules
from hyblink.app.linking.knowledge_base import KnowledgeBase
from hyblink.app.linking.service import LinkService
from hyblink.app.search.service import SearchService
from hyblink.indexer.ingest.documents import DocumentService
from hyblink.indexer.ingest.uploads import Uploads


@dataclass(slots=True)
class App:
    """All services and stores of the application, connected to each other. Call `close` when done."""

    settings: Settings
    catalog: Catalog
    encoders: EncoderPool
    jobs: CeleryJobs | InProcessJobs
    claims: Claims
    job_records: JobRecords
    uploads: Uploads
    feedback: Feedback
    schedules: Schedules
    documents: DocumentService
    search: SearchService
    entities: KnowledgeBase
    linker: LinkService

    def close(self) -> None:
        """Stop background work and close services, engines and files."""
        self.jobs.close()
        self.search.close()
        self.linker.close()
        self.catalog.close()
