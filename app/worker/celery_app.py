"""For Celery's own commands, such as `celery -A indexer.celery_app inspect`. The usual way is `hyblink worker`."""

from __future__ import annotations

from hyblink.app.core.settings import Settings
from hyblink.app.worker.tasks import worker_celery

app, _ = worker_celery(Settings())
