"""What Celery's workers run."""
