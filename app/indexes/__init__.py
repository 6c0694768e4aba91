"""Engines: the embedded one (SQLite, tantivy, our sparse postings) and dense indexes on FAISS."""
