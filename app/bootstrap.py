"""Create the application from its settings. Importing this module opens no file and loads no model."""

from __future__ import annotations

from hyblink.app.application import App
from hyblink.app.core.extensions import load_extensions
from hyblink.app.core.private import make_private
from hyblink.app.core.settings import Settings
from hyblink.app.encoders.pool import EncoderPool
from hyblink.app.engines.catalog import Catalog
from hyblink.app.engines.embedded.registry import FileRegistry
from hyblink.app.engines.registry import Registry
from hyblink.app.feedback.feedback import Feedback
from hyblink.app.jobs.celery_jobs import CeleryJobs, uses_celery
from hyblink.app.jobs.claims import Claims
from hyblink.app.jobs.in_process import InProcessJobs, Work
from hyblink.app.jobs.records import JobRecords
from hyblink.app.jobs.schedules import Schedules
from hyblink.app.linking.knowledge_base import KnowledgeBase
from hyblink.app.linking.service import LinkService
from hyblink.app.search.service import SearchService
from hyblink.indexer.ingest.documents import DocumentService
from hyblink.indexer.ingest.uploads import Uploads


def _registry(settings: Settings) -> Registry:
    if settings.engine == "embedded":
        return FileRegistry(settings)
    from hyblink.app.engines.opensearch.registry import ClusterRegistry

    return ClusterRegistry(settings)


def build(settings: Settings | None = None) -> App:
    """Return the application for the given settings; None reads the environment, hyblink.toml and the defaults.

    Raises InvalidInputError for an unknown broker.
    """
    settings = settings or Settings()
    if settings.private_data:
        make_private(settings.data_dir)
    load_extensions(settings.extensions)
    catalog = Catalog(_registry(settings))
    encoders = EncoderPool(settings)
    app: App

    def work() -> Work:
        from hyblink.app.operations.tasks import Tasks

        return Tasks(app)

    jobs: CeleryJobs | InProcessJobs = CeleryJobs(settings) if uses_celery(settings) else InProcessJobs(work)
    records = catalog.records()
    documents = DocumentService(
        catalog,
        encoders.bag,
        jobs,
        max_document_chars=settings.ingest.max_document_chars,
        max_bulk_documents=settings.api.max_bulk_documents,
    )
    app = App(
        settings,
        catalog,
        encoders,
        jobs,
        Claims(records, lease_s=settings.jobs.claim_s),
        JobRecords(
            records,
            jobs,
            silent_s=settings.jobs.silent_s,
            max_attempts=settings.jobs.max_attempts,
            retry_s=settings.jobs.retry_s,
        ),
        Uploads(settings.jobs.uploads or settings.data_dir / "uploads", max_bytes=settings.jobs.max_upload_bytes),
        Feedback(records),
        Schedules(records),
        documents,
        SearchService(catalog, encoders, settings.search),
        KnowledgeBase(
            documents, max_chars=settings.ingest.max_document_chars, max_bulk=settings.api.max_bulk_documents
        ),
        LinkService(catalog, encoders, settings.link),
    )
    return app
