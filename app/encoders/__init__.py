"""Text to vectors and to weights over a vocabulary. torch is imported only when a model is loaded."""
