"""Celery workers: their tasks, and the processes that run them."""
