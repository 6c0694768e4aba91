"""The indexing side: file readers, chunking, the ingestion pipeline, encoding of passages, index generations."""
