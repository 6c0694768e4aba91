"""Judged queries in, figures out: qrels, runs, measures, significance, tuning; linking has a folder of its own."""
