"""The registry of all file formats that can be ingested. The command line, the API and the upload page use it."""

from __future__ import annotations

from pathlib import Path

from hyblink.app.core.registry import Registry
from hyblink.indexer.readers import beir, delimited, html, jsonl, markdown, pdf, plain_text
from hyblink.indexer.readers.format import Format

FORMATS: Registry[Format] = Registry("format", lambda row: row.name)
FORMATS.add(
    Format("jsonl", (".jsonl", ".ndjson"), "a JSON object a line", rows=jsonl.rows),
    Format("csv", (".csv",), "a header and fields separated by commas", rows=delimited.comma_rows),
    Format("tsv", (".tsv",), "a header and fields separated by tabs", rows=delimited.tab_rows),
    Format("markdown", (".md", ".markdown"), "a document; its title is the first heading", whole=markdown.read),
    Format("text", (".txt", ".rst"), "a document; its title is the file's name", whole=plain_text.read),
    Format("html", (".html", ".htm"), "a document; its title is the page's", whole=html.read),
    Format("pdf", (".pdf",), "a document; its title is the PDF's", whole=pdf.read),
    Format("beir", (), "a folder with corpus.jsonl, as in the BEIR benchmark", rows=jsonl.rows, folder=beir.corpus),
)


def detect_format(path: Path) -> str | None:
    """The name of the format by the file's suffix, or None if it is unknown. A trailing `.gz` is ignored."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return next((row.name for row in FORMATS.values() if suffix in row.suffixes), None)
