"""Which extra of the distribution brings a module, for messages about what is not installed."""

from __future__ import annotations

from hyblink.app.core.errors import HyblinkError

_MODULES = {
    "local": (
        "charset_normalizer", "defusedxml", "docutils", "lxml", "openpyxl", "oxmsg", "py3langid", "py7zr",
        "pypdfium2", "striprtf", "xlrd", "yaml", "fastapi", "fastapi_offline", "starlette", "filelock", "markdown_it",
        "mwparserfromhell", "numba", "numpy", "onnx", "onnxruntime", "opensearchpy", "prometheus_client", "psutil",
        "jwt", "cryptography", "Stemmer", "regex", "safetensors", "selectolax", "tantivy", "tokenizers", "uvicorn",
        "faiss", "huggingface_hub",
    ),
    "ui": ("streamlit", "altair"),
    "worker": ("celery", "kombu", "redis"),
    "aws": ("boto3", "botocore"),
    "sources": ("fsspec", "s3fs", "sqlalchemy", "psycopg"),
    "spacy": ("spacy",),
    "train": (
        "torch", "transformers", "sentence_transformers", "peft", "accelerate", "ir_measures", "matplotlib",
        "onnxscript", "rank_bm25", "rdflib", "sklearn", "scipy",
    ),
}  # fmt: skip
EXTRAS = {module: extra for extra, modules in _MODULES.items() for module in modules}
"""Module → extra, for every module of an extra that is imported."""

NEEDS_TORCH = "the train extra, which brings torch: pip install 'hyblink[train]'"
"""The way out for what only torch can do."""


class NotInstalledError(HyblinkError):
    """What was asked for needs a package that is not installed."""

    code = "not_installed"


def not_installed(error: ModuleNotFoundError) -> NotInstalledError | None:
    """The error that names the extra which brings the missing module; None for a module of no extra."""
    module = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(module)
    if extra is None:
        return None
    return NotInstalledError(
        f"this needs the extra {extra}",
        received=f"{module} is not installed",
        expected=f"pip install 'hyblink[{extra}]'",
    )
