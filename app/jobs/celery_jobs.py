"""The Celery configuration for every broker, and the implementation of the `Jobs` port with Celery.

No broker is trusted to be durable. A task carries only ids: a collection and generation, or a job. The work itself is
read from the store. A periodic sweep queues work again that no worker has claimed.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hyblink.app.core.errors import InvalidInputError, UnavailableError
from hyblink.app.core.logs import request_id
from hyblink.app.core.settings import JobsSettings, Settings
from hyblink.app.jobs.claims import BLOCK
from hyblink.app.jobs.job import RUN_LONG_TASK, RUN_TASK

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger(__name__)

ENCODE, ANNOTATE, RUN, RUN_LONG = "hyblink.encode", "hyblink.annotate", RUN_TASK, RUN_LONG_TASK
SWEEP, TIDY, MERGE, CHECK = "hyblink.sweep", "hyblink.tidy", "hyblink.merge", "hyblink.check"
QUEUES = ("ingest", "encode", "train", "maintenance")
QUEUE_OF_JOB = {"ingest": "ingest", "sync": "ingest", "rebuild": "maintenance", "retrain": "train"}
"""The queue of each kind of job."""
LONG_JOBS = ("rebuild", "retrain", "sync")
"""Kinds of jobs that cannot be split into time slices.

Their tasks have no time limit and are acknowledged early: a broker redelivers tasks that stay unacknowledged too long.
"""
_SCHEMES = ("redis", "rediss", "amqp", "amqps")
_AT_ONCE = 16
_DEBOUNCE_S = 0.05
_LIMIT_SLACK_S = 600.0
_EXPIRES_S = 3600.0  # bounds the queue; the sweep queues expired work again
_HOUR, _DAY = 3600.0, 86_400.0


def uses_celery(settings: Settings) -> bool:
    """Return whether the settings name a broker. Raises InvalidInputError for an unknown kind of broker."""
    wanted = settings.jobs.broker.get_secret_value()
    scheme = urlsplit(wanted).scheme
    if wanted not in {"none", "filesystem"} and scheme not in _SCHEMES:
        raise InvalidInputError(
            "unknown broker", received=scheme or wanted, expected=f"none, filesystem, {', '.join(_SCHEMES)}://…"
        )
    return wanted != "none"


def celery_for(settings: Settings) -> Celery:
    """Return a configured Celery application for the settings' broker, without registered tasks."""
    from celery import Celery
    from kombu import Queue

    jobs = settings.jobs
    url = jobs.broker.get_secret_value()
    broker = url
    options: dict[str, Any] = {}
    if url == "filesystem":
        from hyblink.app.jobs.filesystem_transport import SCHEME

        folder = settings.data_dir.resolve() / "broker"
        control = folder / "control"
        control.mkdir(parents=True, exist_ok=True)
        broker = f"{SCHEME}://localhost"
        options = {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(control),
            "polling_interval": 0.2,
        }
    elif url.startswith("redis"):
        from hyblink.app.jobs import redis_transport

        broker = f"{redis_transport.SCHEME}:{url.partition(':')[2]}"
        options = {
            "visibility_timeout": jobs.visibility_timeout_s,
            "global_keyprefix": "hyblink:",
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "health_check_interval": 30,
        }
    celery = Celery("hyblink", broker=broker, set_as_current=False)
    limit = jobs.slice_s + _LIMIT_SLACK_S
    celery.conf.update(
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_soft_time_limit=limit,
        task_time_limit=limit + 60,
        task_create_missing_queues=False,
        task_default_queue="maintenance",
        task_queues=[Queue(name, durable=True) for name in QUEUES],
        task_routes={ENCODE: {"queue": "encode"}, ANNOTATE: {"queue": "encode"}},
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        broker_transport_options=options,
        broker_use_ssl=_tls(jobs, url),
        timezone="UTC",
        beat_scheduler="celery.beat:Scheduler",  # the default, persistent scheduler stores its state as a pickle
        beat_schedule={
            "sweep": {"task": SWEEP, "schedule": jobs.sweep_s, "options": {"expires": jobs.sweep_s}},
            "tidy": {"task": TIDY, "schedule": _HOUR, "options": {"expires": _HOUR}},
            "merge": {"task": MERGE, "schedule": _DAY, "options": {"expires": _DAY}},
            "check": {"task": CHECK, "schedule": _DAY, "options": {"expires": _DAY}},
        },
    )
    return celery


def _tls(jobs: JobsSettings, url: str) -> dict[str, Any] | None:
    """TLS options for an encrypted broker; None for others.

    Certificate and host name are always verified, against `ca_file` or the system's certificate authorities.
    """
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    if scheme not in {"rediss", "amqps"}:
        return None
    prefix = "ssl_" if scheme == "rediss" else ""
    authorities = jobs.ca_file or ssl.get_default_verify_paths().cafile
    options: dict[str, Any] = {f"{prefix}cert_reqs": ssl.CERT_REQUIRED}
    if authorities:
        options[f"{prefix}ca_certs"] = str(authorities)
    if jobs.client_certificate:
        options[f"{prefix}certfile"] = str(jobs.client_certificate)
        options[f"{prefix}keyfile"] = str(jobs.client_key or jobs.client_certificate)
    return options | ({"ssl_check_hostname": True} if prefix else {"server_hostname": host})


_Task = tuple[str, tuple[str, ...], str, float]
"""A task's name, its arguments (ids), its queue, and its delay in seconds."""


class CeleryJobs:
    """The `Jobs` port over Celery. A thread sends the queued tasks, so that no request waits for the broker.

    Tasks that cannot be sent are dropped; the periodic sweep queues their work again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._celery: Celery | None = None
        self._pending: dict[_Task, tuple[int, str]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._sending = self._closed = False

    def encode(self, collection: str, generation: str, rows: Iterable[int]) -> None:
        count = sum(1 for _ in rows)
        if count:
            self._put((ENCODE, (collection, generation), "encode", 0.0), count)

    def annotate(self, collection: str) -> None:
        self._put((ANNOTATE, (collection,), "encode", 0.0), 1)

    def run(self, job_id: str, kind: str, delay_s: float = 0.0) -> None:
        task = RUN_LONG if kind in LONG_JOBS else RUN
        self._put((task, (job_id,), QUEUE_OF_JOB[kind], delay_s), 1)

    def _put(self, task: _Task, count: int) -> None:
        with self._changed:
            waiting, asked = self._pending.get(task, (0, request_id.get()))
            self._pending[task] = (waiting + count, asked)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="hyblink-jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
            time.sleep(_DEBOUNCE_S)  # many small writes become one task
            with self._changed:
                tasks, self._pending, self._sending = self._pending, {}, True
            try:
                self._send(tasks)
            except Exception as error:  # noqa: BLE001
                # Broker clients raise many types. Nothing is lost: the store still has the pending work.
                log.warning("the broker takes no tasks, they are queued again later: %s", error)

    def _send(self, tasks: dict[_Task, tuple[int, str]]) -> None:
        if self._celery is None:
            self._celery = celery_for(self._settings)
        for (name, args, queue, delay), (count, asked) in tasks.items():
            # One task processes block after block until none is left; several tasks let several workers share them.
            for _ in range(min(_AT_ONCE, -(-count // BLOCK)) if name == ENCODE else 1):
                self._celery.send_task(
                    name,
                    args=list(args),
                    queue=queue,
                    countdown=delay or None,
                    expires=_EXPIRES_S if name in {ENCODE, ANNOTATE} else None,
                    headers={"request_id": asked},
                )

    def lengths(self) -> dict[str, int]:
        """Return the number of waiting tasks by queue. Raises UnavailableError if the broker does not answer."""
        celery = celery_for(self._settings)
        try:
            with celery.connection(connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=1, timeout=3)
                channel = connection.default_channel
                return {
                    name: int(channel.queue_declare(name, durable=True, exclusive=False, auto_delete=False)[1])
                    for name in QUEUES
                }
        except Exception as error:
            # Broker clients raise many types.
            raise UnavailableError(f"the broker does not answer: {type(error).__name__}") from error
        finally:
            celery.close()

    def close(self, timeout_s: float = 5.0) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._pending and not self._sending, timeout_s)
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._celery is not None:
            self._celery.close()
