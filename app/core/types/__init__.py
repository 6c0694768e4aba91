"""The data model: immutable dataclasses that the layers exchange. They hold data and a few derived properties."""
