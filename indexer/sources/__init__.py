"""Sources of documents beside folders: web pages, buckets and databases. Each is read like a folder of files."""
