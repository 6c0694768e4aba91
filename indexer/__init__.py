"""Documents in: readers, chunking, the ingestion pipeline, encoding jobs, generations."""
