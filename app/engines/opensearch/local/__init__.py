"""A local OpenSearch cluster without Docker: assembled from Maven Central and run as ordinary processes."""
