"""Plain text out of Markdown, HTML and PDF, by libraries made for it."""

from __future__ import annotations

import io
import re

from hyblink.app.core.errors import InvalidInputError

_BLANK = re.compile(r"[ \t]*\n[ \t]*(?:\n[ \t]*)+")
_BLOCKS = "p,div,section,article,li,tr,h1,h2,h3,h4,h5,h6,pre,blockquote,dt,dd,br,td,th"


def _tidy(text: str) -> str:
    return _BLANK.sub("\n\n", text.replace("\r\n", "\n")).strip()


def markdown_text(source: str) -> tuple[str, str]:
    """(title, text) of a Markdown document: its first heading, and its words without the markup.

    >>> markdown_text("# Top\\n\\nSome *words* and `code`.\\n\\n- one\\n- two")
    ('Top', 'Top\\n\\nSome words and code.\\n\\none\\n\\ntwo')
    """
    from markdown_it import MarkdownIt

    title, blocks, in_heading = "", [], False
    for token in MarkdownIt("commonmark").enable("table").parse(source):
        if token.type in {"heading_open", "heading_close"}:
            in_heading = token.type == "heading_open"
        elif token.type == "inline":
            words = "".join(
                "\n" if child.type in {"softbreak", "hardbreak"} else child.content for child in token.children or []
            )
            blocks.append(words)
            if in_heading and not title:
                title = words.strip()
        elif token.type in {"fence", "code_block"}:
            blocks.append(token.content)
    return title, _tidy("\n\n".join(blocks))


def html_text(source: str) -> tuple[str, str]:
    """(title, text) of an HTML page; scripts, styles and hidden parts left out.

    >>> html_text("<title>T</title><script>x</script><p>One</p><p>Two &amp; three</p>")
    ('T', 'One\\nTwo & three')
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(source)
    title = tree.css_first("title")
    name = title.text(strip=True) if title else ""
    for node in tree.css("script,style,noscript,template,title,[hidden]"):
        node.decompose()
    for node in tree.css(_BLOCKS):
        node.insert_after("\n")
    body = tree.body or tree.root
    text = body.text(separator="") if body else ""
    return name, re.sub(r"\n{3,}", "\n\n", _tidy(re.sub(r"[ \t]+", " ", text)))


def pdf_text(data: bytes) -> tuple[str, str, int]:
    """(title, text, number of pages) of a PDF. Raises InvalidInputError where it cannot be read."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidInputError("the PDF is encrypted", expected="a PDF that opens without a password")
        text = "\n\n".join(page.extract_text() or "" for page in reader.pages)
        title = str((reader.metadata.title if reader.metadata else "") or "")
        pages = len(reader.pages)
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        OSError,
    ) as error:
        raise InvalidInputError(f"the PDF cannot be read: {error}", expected="a readable PDF") from error
    clean = text.encode("utf-8", "replace").decode().replace("\x00", " ")
    return title.replace("\x00", " ").strip(), _tidy(clean), pages
