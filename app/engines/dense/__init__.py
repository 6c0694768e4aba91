"""Dense indexes behind one port: FAISS now, OpenSearch's k-NN beside it later."""
