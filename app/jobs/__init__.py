"""Background work: job records, claims on passages, schedules, and task queues (in-process threads, or Celery)."""
