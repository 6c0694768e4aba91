"""The registry of all file formats that can be ingested. The command line, the API and the upload page use it."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from pathlib import Path

import orjson

from hyblink.app.core.registry import Registry
from hyblink.indexer.readers import (
    archives,
    beir,
    delimited,
    ebook,
    html,
    jsonl,
    mail,
    markdown,
    markup,
    notebook,
    ocr,
    office,
    opendocument,
    pdf,
    plain_text,
    rtf,
    sheets,
    tables,
)
from hyblink.indexer.readers.encodings import encoding_of, is_binary
from hyblink.indexer.readers.format import Format

KEEP_BOILERPLATE, OCR = "keep_boilerplate", "ocr"
"""The names of variants of formats."""
FORMATS: Registry[Format] = Registry("format", lambda row: row.name)
_TITLED = "text, title, sections, metadata"
_SOURCE_CODE = (
    ".py", ".pyi", ".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".java", ".kt", ".kts", ".scala", ".groovy", ".c",
    ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".cs", ".fs", ".vb", ".go", ".rs", ".rb", ".php", ".pl", ".pm", ".lua",
    ".r", ".jl", ".swift", ".m", ".mm", ".dart", ".ex", ".exs", ".erl", ".hs", ".ml", ".mli", ".clj", ".cljs", ".lisp",
    ".el", ".scm", ".sql", ".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".cmd", ".awk", ".sed", ".vim", ".css",
    ".scss", ".less", ".vue", ".svelte", ".graphql", ".proto", ".thrift", ".tf", ".nix", ".cmake", ".gradle", ".asm",
    ".s", ".v", ".sv", ".vhd", ".vhdl", ".f", ".f90", ".f95", ".pas", ".d", ".nim", ".zig", ".sol", ".tcl", ".diff",
    ".patch", ".mk", ".dockerfile", ".j2", ".tmpl", ".ttl", ".nt", ".dot", ".bib",
)  # fmt: skip
_CONFIGURATION = (".ini", ".cfg", ".conf", ".properties", ".env", ".editorconfig", ".service", ".desktop", ".plist")
_PLAIN_NAMES = (
    "readme", "license", "licence", "copying", "notice", "authors", "contributors", "changelog", "changes", "news",
    "todo", "install", "history", "version", "codeowners", "manifest",
)  # fmt: skip
_CODE_NAMES = (
    "makefile", "dockerfile", "containerfile", "vagrantfile", "rakefile", "gemfile", "jenkinsfile", "justfile",
    "procfile",
)  # fmt: skip

FORMATS.add(
    Format("jsonl", (".jsonl", ".ndjson"), "a JSON object a line", rows=jsonl.rows, kept="fields"),
    Format("json", (".json", ".geojson"), "an array of objects, or one document", rows=jsonl.array_rows, kept="fields"),
    Format("csv", (".csv",), "a header and fields with any usual separator", rows=delimited.comma_rows, kept="fields"),
    Format("tsv", (".tsv", ".tab"), "a header and fields separated by tabs", rows=delimited.tab_rows, kept="fields"),
    Format(
        "markdown",
        (".md", ".markdown", ".mdown"),
        "its title is that of its front matter, or its first level-1 heading",
        whole=markdown.read,
        kept=_TITLED,
    ),
    Format("mdx", (".mdx",), "as Markdown, without imports", whole=markdown.read_mdx, kept=_TITLED),
    Format("rst", (".rst", ".rest"), "a document; its title is the first heading", whole=markup.read_rst, kept=_TITLED),
    Format(
        "asciidoc",
        (".adoc", ".asciidoc", ".asc"),
        "a document; its title is the first heading",
        whole=markup.read_adoc,
        kept=_TITLED,
    ),
    Format("org", (".org",), "a document; its title is `#+TITLE`", whole=markup.read_org, kept=_TITLED),
    Format(
        "tex", (".tex", ".latex"), "a document; its title is that of `\\title`", whole=markup.read_tex, kept=_TITLED
    ),
    Format(
        "text",
        (".txt", ".text", ".log", ".out", ".err", ".srt", ".vtt"),
        "a document; its title is the file's name",
        whole=plain_text.read,
        names=_PLAIN_NAMES,
    ),
    Format(
        "code",
        (*_SOURCE_CODE, *_CONFIGURATION),
        "source code or configuration, a document",
        whole=plain_text.read_code,
        names=_CODE_NAMES,
    ),
    Format(
        "yaml",
        (".yaml", ".yml", ".toml"),
        "a document; its title is its `title` or `name`",
        whole=plain_text.read_yaml,
        kept="text, title",
    ),
    Format(
        "xml",
        (".xml", ".rss", ".atom", ".svg", ".xsd", ".xsl", ".wsdl", ".opml"),
        "the text of its elements",
        whole=plain_text.read_xml,
        kept="text, title",
    ),
    Format(
        "html",
        (".html", ".htm", ".xhtml"),
        "the main content of a page",
        whole=html.read,
        variants={KEEP_BOILERPLATE: html.read_everything},
        kept="text, title, sections, places (anchors), metadata",
    ),
    Format(
        "pdf",
        (".pdf",),
        "a document; its title is the PDF's",
        whole=pdf.read,
        variants={OCR: pdf.read_scans},
        kept="text, title, places (pages), metadata",
    ),
    Format("docx", (".docx", ".docm", ".dotx"), "a document of Word", whole=office.read_docx, kept=_TITLED),
    Format(
        "pptx",
        (".pptx", ".pptm", ".ppsx"),
        "slides of PowerPoint",
        whole=office.read_pptx,
        kept="text, title, places (slides), metadata",
    ),
    Format(
        "xlsx",
        (".xlsx", ".xlsm"),
        "a workbook is a document, a sheet a section",
        whole=sheets.read_xlsx,
        unpack_rows=tables.unpack_xlsx,
        kept="text, title, places (sheets), metadata",
    ),
    Format(
        "xls",
        (".xls",),
        "a workbook of old Excel",
        whole=sheets.read_xls,
        unpack_rows=tables.unpack_xls,
        kept="text, title, places (sheets)",
    ),
    Format(
        "opendocument",
        (".odt", ".ott", ".odp", ".ods", ".fodt"),
        "texts, slides and sheets of LibreOffice",
        whole=opendocument.read_odf,
        unpack_rows=tables.unpack_odf,
        kept=_TITLED,
    ),
    Format("rtf", (".rtf",), "a document of rich text", whole=rtf.read_rtf, kept="text, title"),
    Format("epub", (".epub",), "a book", whole=ebook.read_epub, kept=_TITLED),
    Format(
        "notebook",
        (".ipynb",),
        "a Jupyter notebook: its texts, code and printed results",
        whole=notebook.read_ipynb,
        kept="text, title, sections, places (cells)",
    ),
    Format(
        "mail",
        (".eml",),
        "a mail; its attachments are documents too",
        whole=mail.read_eml,
        unpack=archives.unpack_mail,
        kept="text, title, metadata",
    ),
    Format(
        "outlook",
        (".msg",),
        "a mail of Outlook; its attachments are documents too",
        whole=mail.read_msg,
        unpack=archives.unpack_msg,
        kept="text, title, metadata",
    ),
    Format("mbox", (".mbox", ".mbx"), "a mailbox: each message, and its attachments", unpack=archives.unpack_mbox),
    Format("zip", (".zip",), "an archive: every file in it", unpack=archives.unpack_zip),
    Format(
        "tar",
        (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz"),
        "an archive: every file in it",
        unpack=archives.unpack_tar,
    ),
    Format("7z", (".7z",), "an archive: every file in it", unpack=archives.unpack_7z),
    Format(
        "picture",
        (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"),
        "with `--ocr`: the text in a picture",
        whole=ocr.read_picture,
        variants={OCR: ocr.read_picture},
        needs="a picture; --ocr reads the text in it",
    ),
    Format("beir", (), "a folder with corpus.jsonl, as in the BEIR benchmark", rows=jsonl.rows, folder=beir.corpus),
)


def formats_table() -> str:
    """The formats as a Markdown table: name, files, how they are read, what is kept of them."""
    lines = ["| format | files | read as | kept |", "|---|---|---|---|"]
    for row in FORMATS.values():
        suffixes = [f"`{suffix}`" for suffix in row.suffixes]
        names = [f"`{name.upper() if name in _PLAIN_NAMES else name.capitalize()}`" for name in row.names]
        files = ", ".join([*suffixes, *names]) or "a folder"
        lines.append(f"| `{row.name}` | {files} | {row.about} | {row.kept} |")
    return "\n".join(lines)


def detect_format(path: Path) -> str | None:
    """The name of the format by the file's name, or None if it says nothing. A trailing `.gz` is ignored.

    A format that was registered later comes before earlier ones.
    """
    name = path.name.lower()
    rows = list(FORMATS.values())[::-1]
    for row in rows:  # suffixes of two parts before those of one
        if any(suffix.count(".") > 1 and name.endswith(suffix) for suffix in row.suffixes):
            return row.name
    name = name.removesuffix(".gz")
    suffix = Path(name).suffix
    found = next((row.name for row in rows if suffix in row.suffixes), None)
    return found or next((row.name for row in rows if name in row.names), None)


def format_of(path: Path) -> str | None:
    """The name of the format of a file that is there, by its name, else by its content; None if nothing reads it.

    Raises OSError if the file cannot be read.
    """
    found = detect_format(path)
    if found not in {None, "text"}:
        return found
    sample = _beginning(path)
    if found == "text":
        # Excel saves tables as "Unicode text" under this suffix.
        first = sample.partition(b"\n\x00")[0]
        utf16 = encoding_of(sample).name.startswith("utf-16")
        return "tsv" if utf16 and first.count(b"\t\x00") > 1 and path.suffix.lower() == ".txt" else found
    if path.suffix and len(path.suffix) <= 12 and is_binary(sample):
        return None
    if sample.startswith(b"%PDF-"):
        return "pdf"
    if sample.startswith(b"From ") and b"\nSubject:" in sample[:8192]:
        return "mbox"
    if sample.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    if not path.suffix and (json := _json_of(sample)):
        return json
    return None if is_binary(sample) else "text"


def _json_of(sample: bytes) -> str:
    """`jsonl` or `json` for the beginning of a file of JSON objects, else ""."""
    sample = sample.removeprefix(codecs.BOM_UTF8).lstrip()
    if re.match(rb"\[\s*\{\s*\"", sample):
        return "json"
    if not re.match(rb"\{\s*\"", sample):
        return ""
    try:
        return "jsonl" if isinstance(orjson.loads(sample.partition(b"\n")[0]), dict) else ""
    except orjson.JSONDecodeError:
        return "json"


def _beginning(path: Path) -> bytes:
    """The first 64 kB of a file, unpacked if it is gzipped."""
    with path.open("rb") as file:
        data = file.read(1 << 16)
    if path.name.lower().endswith(".gz"):
        try:
            with gzip.open(path, "rb") as unpacked:
                return unpacked.read(1 << 16)
        except (OSError, EOFError, zlib.error):
            return data
    return data
