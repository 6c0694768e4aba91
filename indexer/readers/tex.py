"""Reads LaTeX (.tex)."""

from __future__ import annotations

import re

from hyblink.indexer.readers.blocks import Blocks, flat
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.rows import decode

_LEVELS = {
    "part": 0,
    "chapter": 1,
    "section": 2,
    "subsection": 3,
    "subsubsection": 4,
    "paragraph": 5,
    "subparagraph": 6,
}
_TOKEN = re.compile(
    r"\\(?P<word>[A-Za-z@]+)\*?(?:[ \t]*\n(?![ \t]*\n)[ \t]*|[ \t]*)|\\(?P<sign>[^A-Za-z@])"
    r"|(?P<comment>%[^\n]*(?:\n(?![ \t]*\n)[ \t]*)?)"
    r"|(?P<blank>\n[ \t]*\n\s*)|(?P<math>\$\$?)|(?P<brace>[{}])|(?P<other>[~&])|(?P<text>[^\\%\n${}~&]+|\n)"
)
_NOT_TEXT = frozenset(
    (
        "label", "ref", "eqref", "pageref", "autoref", "cref", "Cref", "nameref", "bibliographystyle", "bibliography",
        "input", "include", "includegraphics", "includeonly", "usepackage", "documentclass", "RequirePackage",
        "vspace", "hspace", "setlength", "addtolength", "setcounter", "addtocounter", "newcommand", "renewcommand",
        "providecommand", "newenvironment", "renewenvironment", "DeclareMathOperator", "newtheorem", "theoremstyle",
        "pagestyle", "thispagestyle", "graphicspath", "hypersetup", "geometry", "definecolor", "color", "pagenumbering",
        "newlength", "newcounter", "bibitem", "addbibresource", "lstset", "index", "hyphenation", "cline", "cmidrule",
        "usetikzlibrary", "tikzset", "phantom", "hphantom", "vphantom", "fontsize", "linespread", "def", "let",
        "PassOptionsToPackage", "captionsetup", "titleformat", "selectlanguage", "rule", "arraystretch",
    )
)  # fmt: skip
"""Commands whose arguments are names, lengths and the like."""
_CITES = frozenset(("cite", "citep", "citet", "parencite", "textcite", "autocite", "footcite", "nocite"))
_SECOND = frozenset(
    ("href", "textcolor", "colorbox", "parbox", "resizebox", "scalebox", "raisebox", "multirow", "fontfamily")
)
"""Commands whose first argument is no text, but whose last is."""
_SIGNS = {
    "ldots": "…", "dots": "…", "textellipsis": "…", "textbackslash": "\\", "textasciitilde": "~", "ss": "ß", "ae": "æ",
    "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "aa": "å", "AA": "Å", "l": "ł", "L": "Ł", "i": "ı", "S": "§",
    "P": "¶", "copyright": "©", "pounds": "£", "euro": "€", "LaTeX": "LaTeX", "TeX": "TeX", "textendash": "–",
    "textemdash": "—", "quad": " ", "qquad": " ", "textbar": "|", "textless": "<", "textgreater": ">", "newline": "\n",
}  # fmt: skip
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
            "c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "r": "\u030a", "k": "\u0328"}  # fmt: skip
_AS_IS = re.compile(r"verbatim\*?|lstlisting|minted|Verbatim|alltt|comment|filecontents\*?")
_MATH = re.compile(r"(?:equation|align|gather|multline|eqnarray|displaymath|math|flalign|alignat)\*?")
_TABLE = frozenset(("tabular", "tabular*", "tabularx", "longtable", "array", "tabulary"))
_WITH_ARGUMENTS = _TABLE | {"minipage", "multicols", "thebibliography", "wrapfigure", "adjustbox", "minted", "column"}
_FIELDS = frozenset(("title", "author", "date"))
_LONGEST_ARGUMENT = 5_000
_LONGEST_FORMULA = 20_000
_DEEPEST = 5
_BRACE = re.compile(r"\\[^A-Za-z]|[{}]|%[^\n]*")
_QUOTES = str.maketrans({"~": " "})


def read_tex(data: bytes) -> WholeFile:
    """A LaTeX document, its sections as sections. The title is that of `\\title`, else the first heading.

    Commands give the text of their arguments, formulas stay as they are. Comments, references and the preamble are
    left out, and no file is included.
    """
    return _Reader(decode(data).replace("\r\n", "\n")).read()


class _Reader:
    def __init__(self, source: str, depth: int = 0) -> None:
        self._depth = depth
        self._titled = False
        self._source = source
        self._braces = _matched(source)
        self._last: dict[str, int] = {}
        self._at = 0
        self._blocks = Blocks()
        self._held: list[str] = []
        self._fields: dict[str, str] = {}
        self._tables = 0
        self._first = ""
        self._body = "\\begin{document}" not in source

    def read(self) -> WholeFile:
        """The document."""
        while self._at < len(self._source):
            token = _TOKEN.match(self._source, self._at)
            if token is None:  # a lone backslash at the end
                break
            self._at = token.end()
            if token["word"]:
                self._command(token)
            elif token["sign"]:
                self._sign(token["sign"])
            elif token["math"]:
                self._formula(token.start(), token["math"])
            elif token["blank"]:
                self._flush()
            elif token["other"]:
                self._say(" | " if token["other"] == "&" and self._tables else token["other"].translate(_QUOTES))
            elif token["text"]:
                said = _typeset(token["text"])
                # In a table a row ends by its own sign, not at the end of the line.
                self._say(said.replace("\n", " ") if self._tables else said)
        self._flush()
        title = self._fields.pop("title", "") or self._first
        return self._blocks.done(title, dict(self._fields))

    def _say(self, text: str) -> None:
        if self._body:
            self._held.append(text)

    def _flush(self) -> None:
        text = "".join(self._held)
        self._held.clear()
        lines = (
            (" ".join(line.split()) for line in text.split("\n")) if self._tables or "\x1e" in text else [flat(text)]
        )
        self._blocks.add("\n".join(line.replace("\x1e", "").strip(" |") for line in lines))

    def _command(self, token: re.Match[str]) -> None:
        name = token["word"]
        if name in _LEVELS:
            self._option()
            said = self._inner(self._argument())
            self._flush()
            if self._body:
                self._blocks.heading(_LEVELS[name], said)
                self._first = self._first or flat(said)
        elif name in _FIELDS:
            self._option()
            self._field(name, flat(self._inner(self._argument())))
        elif name == "begin":
            self._begin(self._argument())
        elif name == "end":
            self._end(self._argument())
        elif name in _NOT_TEXT or name in _CITES:
            self._skip_arguments()
        elif name in _SECOND:
            self._option()
            self._argument()
        elif name == "maketitle":
            if self._fields.get("title") and not self._titled:
                self._flush()
                self._blocks.heading(-1, self._fields["title"])
        elif name in ("item", "par", "bigskip", "medskip", "smallskip", "newpage", "clearpage", "caption", "hline"):
            if name != "hline":
                self._flush()
            option = self._option()
            self._say("- " + (f"{self._inner(option)} " if option else "") if name == "item" else "")
        elif name in _SIGNS:
            self._say(_SIGNS[name] + (" " if token[0][-1:].isspace() else ""))
        elif name in _ACCENTS and self._source.startswith("{", self._at):
            self._accent(name)
        elif name == "verb":
            self._verbatim_word()
        else:
            self._option()
            # A command's text begins after it; one without an argument may have ended a word.
            if not self._source.startswith("{", self._at) and token[0][-1:].isspace():
                self._say(" ")

    def _inner(self, source: str) -> str:
        """The text of an argument, such as a heading."""
        return flat(_Reader(source, self._depth + 1).read().text if self._depth < _DEEPEST else source)

    def _field(self, name: str, value: str) -> None:
        if value and name not in self._fields:
            self._fields[name] = value
            if name == "title" and self._body:
                self._titled = True
                self._flush()
                self._blocks.heading(-1, value)

    def _sign(self, sign: str) -> None:
        if sign == "\\":
            self._option()
            self._say("\n" if self._tables else " ")
        elif sign in "([":
            self._formula(self._at - 2, "\\" + {"(": ")", "[": "]"}[sign])
        elif sign in _ACCENTS:
            self._accent(sign)
        else:
            self._say("" if sign in "-/@!" else " " if sign in ",;: \n" else sign)

    def _accent(self, sign: str) -> None:
        import unicodedata

        letter = self._argument() if self._source.startswith("{", self._at) else self._source[self._at : self._at + 1]
        if not self._source.startswith("{", self._at - len(letter) - 2) or not letter:
            self._at += 1
        letter = {"\\i": "i", "\\j": "j"}.get(letter.strip(), letter)
        self._say(unicodedata.normalize("NFC", letter[:1] + _ACCENTS[sign]) + letter[1:])

    def _formula(self, start: int, close: str) -> None:
        """Keep a formula as it is. One that does not end before the next blank line is only a sign."""
        limit = self._at + _LONGEST_FORMULA
        if close not in self._last:
            self._last[close] = self._source.rfind(close)
        # Past the last one, none is looked for: that would take a long time for each sign.
        end = -1 if self._at > self._last[close] else self._source.find(close, self._at, limit)
        while end > 0 and close[0] == "$" and self._source[end - 1] == "\\":
            end = self._source.find(close, end + 1, limit)
        if end < 0 or self._source.find("\n\n", self._at, end) >= 0:
            self._say(close if close[0] == "$" else "")
            return
        self._at = end + len(close)
        self._say(self._source[start : self._at])

    def _begin(self, name: str) -> None:
        if name == "document":
            self._body = True
            self._held.clear()
            return
        self._flush()
        if _AS_IS.fullmatch(name) or _MATH.fullmatch(name):
            self._option()
            if name == "minted":
                self._argument()
            end = self._source.find(f"\\end{{{name}}}", self._at)
            end = len(self._source) if end < 0 else end
            if self._body and name.rstrip("*") not in ("comment", "filecontents"):
                self._blocks.add(self._source[self._at : end])
            self._at = end
            return
        self._option()
        if name in _WITH_ARGUMENTS:
            self._argument()
            if name in ("tabular*", "tabularx", "tabulary", "wrapfigure"):
                self._argument()
        self._tables += name in _TABLE

    def _end(self, name: str) -> None:
        self._flush()
        self._tables -= name in _TABLE and self._tables > 0
        if name == "document":
            self._at = len(self._source)

    def _skip_arguments(self) -> None:
        for _ in range(6):
            before = self._at
            self._option()
            self._argument()
            if self._at == before:
                return
            # Arguments follow each other without a space.
            if not self._source.startswith(("{", "["), self._at):
                return

    def _option(self) -> str:
        """The optional argument here, without its brackets."""
        if not self._source.startswith("[", self._at):
            return ""
        end = self._source.find("]", self._at, self._at + 1000)
        if end < 0:
            return ""
        said = self._source[self._at + 1 : end]
        self._at = end + 1
        return said

    def _argument(self) -> str:
        """The argument in braces here, without them. Empty if there is none, or it does not end soon."""
        end = self._braces.get(self._at, -1)
        if end < 0 or end - self._at > _LONGEST_ARGUMENT:
            return ""
        said = self._source[self._at + 1 : end]
        self._at = end + 1
        return said

    def _verbatim_word(self) -> None:
        sign = self._source[self._at : self._at + 1]
        end = self._source.find(sign, self._at + 1, self._at + 1000) if sign else -1
        if end > 0:
            self._say(self._source[self._at + 1 : end])
            self._at = end + 1


def _matched(source: str) -> dict[int, int]:
    """Where each brace that opens is closed."""
    found: dict[int, int] = {}
    begun: list[int] = []
    for brace in _BRACE.finditer(source):
        if brace[0] == "{":
            begun.append(brace.start())
        elif brace[0] == "}" and begun:
            found[begun.pop()] = brace.start()
    return found


def _typeset(text: str) -> str:
    return text.replace("---", "—").replace("--", "–").replace("``", "“").replace("''", "”")
