"""Ranking: candidate generation, complete scoring, normalisation, fusion, re-ranking, explanation, weight tuning."""
