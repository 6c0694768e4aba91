"""Where passages live: the embedded engine, OpenSearch, and dense indexes on FAISS."""
