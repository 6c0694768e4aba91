"""Evaluation of retrieval on judged queries: qrels, runs, measures, significance. `linking`: of entity linking."""
