"""A local OpenSearch cluster without Docker: assembled from Maven Central, run as plain processes."""
