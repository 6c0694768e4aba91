"""Reads the text of Markdown files, without the markup."""

from __future__ import annotations

from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.rows import decode
from hyblink.indexer.readers.tidy import tidy


def read(data: bytes) -> WholeFile:
    """Title and text of a Markdown file. Raises InvalidInputError if it is not UTF-8."""
    return WholeFile(*markdown_text(decode(data)))


def markdown_text(source: str) -> tuple[str, str]:
    """(title, text) of a Markdown document. The title is the first heading; the text has no markup.

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
    return title, tidy("\n\n".join(blocks))
