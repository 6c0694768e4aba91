"""Builds ONNX graphs of transformer encoders from safetensors, and runs them in ONNX Runtime. Nothing here needs torch.

`weights.py` reads a model's tensors and merges LoRA adapters. A file of `architectures/` tells where an architecture
keeps its tensors. `blocks.py` and `build.py` make the graph, `quantized.py` its int8 products. `cache.py` keeps
and opens built graphs.
"""
