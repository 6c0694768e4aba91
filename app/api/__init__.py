"""The HTTP door: FastAPI over the same use cases as the command line."""
