"""Hybrid search and entity linking over your own documents."""

import os

# NumPy's own threads spin beside those of ONNX Runtime and FAISS and take their CPUs. Its products here are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
