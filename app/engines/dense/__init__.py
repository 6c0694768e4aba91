"""The dense index on FAISS: index types, building, searching, updating."""
