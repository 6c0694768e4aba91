"""The Celery application, for Celery's own commands: `celery -A hyblink.app.worker.celery_app inspect active`.

To run a worker, use `hyblink worker`.
"""

from __future__ import annotations

from hyblink.app.core.settings import Settings
from hyblink.app.worker.tasks import worker_celery

app, _ = worker_celery(Settings())
