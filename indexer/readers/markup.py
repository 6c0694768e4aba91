"""Reads reStructuredText (.rst). The readers of the other markup languages for documents are here too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from hyblink.indexer.readers.blocks import Blocks, clean, flat, joined
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.lightmarkup import read_adoc, read_org
from hyblink.indexer.readers.rows import decode
from hyblink.indexer.readers.tex import read_tex

__all__ = ["read_adoc", "read_org", "read_rst", "read_tex"]

_DIRECTIVE = re.compile(r"^[ \t]*\.\. (?:\|[^|\n]{1,200}\| )?([A-Za-z][\w.:+-]{0,80}?) ?::(?:[ \t]|$)", re.MULTILINE)
_ROLE = re.compile(r":([A-Za-z][\w.:+-]{0,80}):`|`:([A-Za-z][\w.:+-]{0,80}):")
_OPTION = re.compile(r"[ \t]*:[\w -]{1,60}:(?:[ \t]|$)")
_TARGETED = re.compile(r"(.*\S)\s*<[^<>]*>", re.DOTALL)
_VERBATIM = frozenset(
    ("code", "code-cell", "ipython", "ipython3", "plot", "graphviz", "digraph", "graph", "mermaid", "uml", "testcode",
     "testsetup", "testoutput", "doctest", "prompt", "console", "productionlist", "parsed-literal", "program-output",
     "jupyter-execute", "math", "highlight", "literalinclude"),
)  # fmt: skip
_OPTIONS_ONLY = frozenset(("literalinclude", "automodule", "autoclass", "autofunction", "autosummary", "toctree"))
_MOST_COST = 100_000_000
_SETTINGS = {
    "file_insertion_enabled": False, "raw_enabled": False, "_disable_config": True, "input_encoding": "unicode",
    # The messages are looked through for the source of what is not understood, then left out.
    "report_level": 2, "halt_level": 5, "warning_stream": False, "traceback": True, "syntax_highlight": "none",
    "smart_quotes": False, "docinfo_xform": False, "line_length_limit": 1 << 30, "language_code": "en",
}  # fmt: skip


def read_rst(data: bytes) -> WholeFile:
    """A reStructuredText document, its headings as sections. The title is its first heading.

    No file is included and nothing is run. Directives and roles that are not known, as those of Sphinx, keep their
    text. A document that the parser fails on is given as it is.
    """
    source = decode(data).replace("\x00", "")
    blocks = Blocks()
    try:
        if _cost(source) > _MOST_COST:
            raise ValueError  # it would take minutes
        document = _parsed(source)
        reader = _Reader(blocks)
        reader.walk(document, 1)
    except Exception:  # noqa: BLE001  # nested too deeply, or a fault of the parser: as text it can still be found
        whole = Blocks()
        whole.add(source)
        return whole.done()
    return blocks.done(reader.title, reader.fields)


def _cost(source: str) -> int:
    """A measure of the time to parse: the parser goes through the rest of a paragraph at every sign of markup."""
    return sum(len(part) * sum(map(part.count, "`*|_")) for part in re.split(r"\n[ \t]*\n", source))


def _parsed(source: str) -> Any:
    from docutils.core import publish_doctree  # type: ignore[import-untyped]

    _know(source)
    return publish_doctree(source, settings_overrides=dict(_SETTINGS))


def _know(source: str) -> None:
    """Make the directives and roles in the source known to the parser, which would drop them."""
    from docutils.parsers.rst import directives, roles  # type: ignore[import-untyped]
    from docutils.parsers.rst.languages import get_language  # type: ignore[import-untyped]
    from docutils.utils import new_document  # type: ignore[import-untyped]

    document = new_document("")
    reporter = document.reporter
    reporter.report_level, reporter.stream = 5, None
    words = get_language("en", reporter)
    for name in {found[1].lower() for found in _DIRECTIVE.finditer(source)}:
        if directives.directive(name, words, document)[0] is None:
            directives.register_directive(name, _kept_directive())
    for name in {(found[1] or found[2]).lower() for found in _ROLE.finditer(source)}:
        if roles.role(name, words, 0, reporter)[0] is None:
            roles.register_local_role(name, _kept_role)


class _AnyOption(dict[str, Any]):
    """Options of a directive: whichever there are."""

    def __missing__(self, name: str) -> Callable[[Any], Any]:
        return lambda value: value


def _kept_directive() -> Any:
    from docutils import nodes  # type: ignore[import-untyped]
    from docutils.parsers.rst import Directive

    class Kept(Directive):  # type: ignore[misc]
        """A directive that is not known: its argument and its content stay."""

        has_content = True
        optional_arguments = 1
        final_argument_whitespace = True
        option_spec = _AnyOption(any=str)

        def run(self) -> list[Any]:
            kept: list[Any] = []
            name = self.name.lower().rpartition(":")[2]
            if self.arguments and not (name in _VERBATIM and self.content):
                argument = self.arguments[0]
                # Of Sphinx's domains it is a signature, whose stars are no markup.
                words = [nodes.Text(argument)] if ":" in self.name else self.state.inline_text(argument, self.lineno)[0]
                kept.append(nodes.paragraph("", "", *words))
            caption = self.options.get("caption")
            if isinstance(caption, str):
                kept.append(nodes.paragraph("", caption))
            if not self.content:
                return kept
            if name in _VERBATIM:
                return [*kept, nodes.literal_block("", "\n".join(self.content))]
            if name in _OPTIONS_ONLY:
                return [*kept, nodes.line_block("", *(nodes.line("", line) for line in self.content if line))]
            inner = nodes.container()
            self.state.nested_parse(self.content, self.content_offset, inner)
            return [*kept, inner]

    return Kept


def _kept_role(_name: str, raw: str, text: str, *_context: Any, **_options: Any) -> Any:
    """A role that is not known: its text stays, of a link the words that are shown."""
    from docutils import nodes

    shown = text.replace("\x00", "")
    titled = _TARGETED.fullmatch(shown)
    if titled:
        shown = titled[1]
    elif shown.startswith("~"):
        shown = shown.rpartition(".")[2].lstrip("~")
    return [nodes.literal(raw, shown.lstrip("!"))], []


class _Reader:
    def __init__(self, blocks: Blocks) -> None:
        self.title = ""
        self.fields: dict[str, str] = {}
        self._blocks = blocks

    def walk(self, parent: Any, level: int) -> None:
        """Add the parts of a document or of an element in it. `level` is that of the next heading."""
        from docutils import nodes

        for node in parent.children:
            if isinstance(node, nodes.section):
                self.walk(node, level + 1)
            elif isinstance(node, nodes.title | nodes.subtitle):
                self._title(node, parent, level)
            elif isinstance(node, nodes.system_message):
                self._misread(node)
            elif isinstance(node, nodes.literal_block | nodes.doctest_block | nodes.math_block):
                self._blocks.add(node.astext())
            elif isinstance(node, nodes.bullet_list | nodes.enumerated_list):
                self._list(node, level)
            elif isinstance(node, nodes.definition_list_item):
                self._blocks.add("\n".join(line for part in node.children if (line := _line(part))))
            elif isinstance(node, nodes.field_list | nodes.option_list):
                self._fields(node)
            elif isinstance(node, nodes.table):
                self._table(node)
            elif isinstance(node, nodes.line_block):
                self._blocks.add("\n".join(flat(line.astext()) for line in node.findall(nodes.line)))
            elif isinstance(node, nodes.footnote | nodes.citation):
                self._blocks.add(" ".join(_line(part) for part in node.children))
            elif isinstance(node, nodes.image):
                self._blocks.add(node.get("alt", ""))
            elif isinstance(node, nodes.Invisible | nodes.raw) or "contents" in node.get("classes", ()):
                continue
            elif isinstance(node, nodes.TextElement):
                self._blocks.add(_line(node))
            else:
                self.walk(node, level)

    def _title(self, node: Any, parent: Any, level: int) -> None:
        from docutils import nodes

        if not isinstance(parent, nodes.section | nodes.document):
            self._blocks.add(_line(node))  # of a box
            return
        # The title of the document is over all; its subtitle is over no more than the rest.
        self._blocks.heading(0 if isinstance(parent, nodes.document) else level - 1, _line(node))
        if isinstance(node, nodes.title):
            self.title = self.title or _line(node)

    def _misread(self, message: Any) -> None:
        """Add the source that a message of the parser is about: a directive with an unknown option, a bad table."""
        from docutils import nodes

        for block in message.findall(nodes.literal_block):
            lines = clean(block.astext()).split("\n")
            if lines[0].lstrip().startswith(".. "):
                argument = lines[0].partition("::")[2]
                rest = [line for line in lines[1:] if not _OPTION.match(line)]
                lines = [*([argument.strip()] if argument.strip() and not rest else []), *_dedented(rest)]
            self._blocks.add("\n".join(lines))

    def _list(self, node: Any, level: int) -> None:
        from docutils import nodes

        lines: list[str] = []
        for item in node.children:
            parts = item.children
            if parts and all(isinstance(part, nodes.paragraph) for part in parts):
                lines.append("- " + " ".join(_line(part) for part in parts))
                continue
            if parts and isinstance(parts[0], nodes.paragraph):
                lines.append("- " + _line(parts[0]))
                item.pop(0)
            self._blocks.add("\n".join(lines))
            lines.clear()
            self.walk(item, level)
        self._blocks.add("\n".join(lines))

    def _fields(self, node: Any) -> None:
        lines = []
        for field in node.children:
            parts = [_line(part) for part in field.children]
            lines.append(": ".join(part for part in parts if part))
            if len(parts) == 2 and parts[0].lower() in ("author", "date", "version") and not self._blocks.headings[1:]:
                self.fields.setdefault(parts[0].lower(), parts[1])
        self._blocks.add("\n".join(lines))

    def _table(self, node: Any) -> None:
        from docutils import nodes

        for title in node.findall(nodes.title):
            self._blocks.add(_line(title))
        rows = (joined([_line(entry) for entry in row.children]) for row in node.findall(nodes.row))
        self._blocks.add("\n".join(row for row in rows if row))


def _line(node: Any) -> str:
    return flat(" ".join(_texts(node)))


def _texts(node: Any) -> Iterator[str]:
    """The text of an element; parts of it that are paragraphs do not run into each other."""
    from docutils import nodes

    if isinstance(node, nodes.TextElement | nodes.Text | nodes.image):
        yield node.get("alt", "") if isinstance(node, nodes.image) else node.astext()
    elif not isinstance(node, nodes.system_message):
        for child in node.children:
            yield from _texts(child)


def _dedented(lines: list[str]) -> list[str]:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[indent:] for line in lines]
