"""The engines that store and search passages: the embedded engine and OpenSearch; both can use the FAISS index."""
