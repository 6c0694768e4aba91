"""The inverted index of sparse vectors, searched by exact dot products."""
