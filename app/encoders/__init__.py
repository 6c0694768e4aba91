"""The models: dense and sparse encoders, rerankers, mention models. torch is imported only when a model is loaded."""
