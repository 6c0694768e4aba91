"""Work that is queued: job records, claims, schedules, and who carries tasks (threads, or Celery)."""
