"""Reads Markdown notes and pages: front matter, headings as sections, text without the markup."""

from __future__ import annotations

import re
from typing import Any

from hyblink.indexer.readers.blocks import Blocks, joined
from hyblink.indexer.readers.fields import LANGS, TITLES, metadata, plain
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.front_matter import split_front_matter
from hyblink.indexer.readers.html import html_text
from hyblink.indexer.readers.rows import decode

_WIKI = re.compile(r"!?\[\[([^\[\]|\n]{1,300})(?:\|([^\[\]\n]{1,300}))?\]\]")
_IMPORTS = re.compile(r"^(?:import|export)\s[^\n]*$", re.MULTILINE)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def read(data: bytes) -> WholeFile:
    """A Markdown file: title, text without markup, front matter as metadata, headings as sections.

    The title is that of the front matter, else the first level-1 heading; without either it is empty.
    """
    return _read(decode(data))


def read_mdx(data: bytes) -> WholeFile:
    """An MDX file: Markdown without its `import` and `export` lines; components keep their text."""
    source = decode(data).replace("\r\n", "\n")
    fields, rest = split_front_matter(source)
    return _page(fields, _IMPORTS.sub("", rest), source.count("\n") - rest.count("\n"))


def markdown_text(source: str) -> tuple[str, str]:
    """(title, text) of a Markdown document; see `read`.

    >>> markdown_text("# Top\\n\\nSome *words* and `code`.\\n\\n- one\\n- two")
    ('Top', 'Top\\n\\nSome words and code.\\n\\none\\n\\ntwo')
    """
    found = _read(source)
    return found.title, found.text


def _read(source: str) -> WholeFile:
    source = source.replace("\r\n", "\n")
    fields, rest = split_front_matter(source)
    return _page(fields, rest, source.count("\n") - rest.count("\n"))


def _page(fields: dict[str, Any], source: str, above: int = 0) -> WholeFile:
    """The document. `above`: so many lines stand before `source` in the file."""
    from markdown_it import MarkdownIt

    blocks = Blocks()
    first = ""
    row: list[str] = []
    table: list[str] = []
    in_table = in_heading = False
    level = 0
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source):
        match token.type:
            case "heading_open" | "heading_close":
                in_heading, level = token.type == "heading_open", int(token.tag[1:])
            case "table_open" | "table_close":
                in_table = token.type == "table_open"
                blocks.add("\n".join(table))
                table = []
            case "tr_open":
                row = []
            case "tr_close":
                table.append(joined(row))
            case "inline":
                words = _inline(token.children or [])
                if in_heading:
                    blocks.place(f"line {above + token.map[0] + 1}" if token.map else "", keep_headings=True)
                    blocks.heading(level, words)
                    first = first or (" ".join(words.split()) if level == 1 else "")
                elif in_table:
                    row.append(words)
                else:
                    blocks.add(words)
            case "fence" | "code_block":
                blocks.add(token.content)
            case "html_block":
                blocks.add(html_text(token.content)[1])
            case _:
                pass
    by_name = {plain(key): key for key in fields}
    key = next((by_name[name] for name in TITLES if name in by_name), "")
    title = str(fields.pop(key)) if key and isinstance(fields[key], str | int | float) else ""
    lang = next((by_name[name] for name in LANGS if name in by_name), "")
    if lang and isinstance(fields.get(lang), str):
        fields["lang"] = fields.pop(lang)
    return blocks.done(title.strip() or first, metadata(fields, lambda _: None))


def _inline(children: list[Any]) -> str:
    """The words of a paragraph: markup and tags away, `<br>` and line ends as line breaks, wiki links by their text."""
    parts = []
    for child in children:
        if child.type in {"softbreak", "hardbreak"}:
            parts.append("\n")
        elif child.type == "html_inline":
            parts.append("\n" if _BREAK.fullmatch(child.content) else "")
        elif child.type == "image":
            parts.append(child.content)
        else:
            parts.append(child.content)
    return _WIKI.sub(lambda link: link[2] or link[1], "".join(parts))
