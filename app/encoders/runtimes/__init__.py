"""Export of models to ONNX, and the cache of exported models."""
