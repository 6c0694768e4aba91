"""Relevance judgements, logged searches and clicks, and a click model that turns clicks into judgements."""
