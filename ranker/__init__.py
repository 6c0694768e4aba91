"""Legs in, one ranked list out: retrieval, complete scoring, normalisation, fusion, explanation, tuning."""
