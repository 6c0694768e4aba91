"""The application: its parts, wired by `bootstrap`. What it does with them stands in `operations`."""

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
    """Everything wired. Close it when done."""

    settings: Settings
    catalog: Catalog
    encoders: EncoderPool
    jobs: CeleryJobs | InProcessJobs
    claims: Claims
    work: JobRecords
    uploads: Uploads
    feedback: Feedback
    schedules: Schedules
    documents: DocumentService
    search: SearchService
    entities: KnowledgeBase
    linker: LinkService

    def close(self) -> None:
        """Stop background work and close what is open."""
        self.jobs.close()
        self.search.close()
        self.linker.close()
        self.catalog.close()
