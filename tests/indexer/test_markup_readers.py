"""reStructuredText, AsciiDoc, Org and LaTeX: text, titles and sections; nothing is included, run or fetched."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.growth import assert_linear
from support.reader_files import check

from hyblink.indexer.readers.blocks import Blocks, clean, given_title
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.markup import read_adoc, read_org, read_rst, read_tex

Read = Callable[[bytes], WholeFile]
READERS: list[Read] = [read_rst, read_adoc, read_org, read_tex]

RST = """
Widget guide
============

:Author: Ada

.. note:: Use :func:`spin` with ``speed=2`` and :class:`~pkg.mod.Wheel`, see :doc:`the guide <intro>`.

.. toctree::
   :maxdepth: 2
   :caption: Contents

   install
   usage

Tables
------

+-----+-----+
| a   | b   |
+-----+-----+
| c   | d e |
+-----+-----+

.. code-block:: python
   :caption: Spin
   :unknown: 1

   def spin():
       return 2

Deep
~~~~

- one
- two

  more

.. py:function:: stop(now)
   :module: pkg

   Stops the *wheel*.

.. image:: x.png
   :alt: a wheel

.. comment

term
  what it means

Last
----

.. versionadded:: 2.0
   The `link <http://127.0.0.1:9/>`_ and |sub|.

.. |sub| replace:: swapped
"""


def test_rst() -> None:
    file = read_rst(RST.encode())
    assert file.title == "Widget guide"
    assert file.text == (
        "Widget guide\n\nAuthor: Ada\n\nUse spin with speed=2 and Wheel, see the guide.\n\nContents\n\ninstall\nusage\n\n"
        "Tables\n\na | b\nc | d e\n\ndef spin():\n    return 2\n\nDeep\n\n- one\n- two more\n\nstop(now)\n\nStops the wheel."
        "\n\na wheel\n\nterm\nwhat it means\n\nLast\n\n2.0 The link and swapped."
    )
    assert check(file) == [
        ("", "Widget guide", "Widget guide"),
        ("", "Widget guide > Tables", "Tables"),
        ("", "Widget guide > Tables > Deep", "Deep"),
        ("", "Widget guide > Last", "Last"),
    ]
    assert file.metadata == {"author": "Ada"}


def test_rst_reads_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("SECRET")
    source = f"A\n=\n\n.. include:: {tmp_path}/secret.txt\n\n.. raw:: html\n   :file: {tmp_path}/secret.txt\n\n.. csv-table::\n   :file: {tmp_path}/secret.txt\n\n.. literalinclude:: {tmp_path}/secret.txt\n\nB\n=\n\nend `broken\n"
    file = read_rst(source.encode())
    assert "SECRET" not in file.text
    assert file.title == "A"
    assert file.text.endswith("B\n\nend `broken")
    assert "WARNING" not in file.text
    check(file)


def test_rst_that_would_take_minutes_is_text() -> None:
    started = time.monotonic()
    assert read_rst(b"*a " * 100_000).text.endswith("*a")
    assert time.monotonic() - started < 10


def test_asciidoc() -> None:
    file = read_adoc(
        b"= Guide\nAda Bell <ada@example.org>\n:toc: left\n:date: 2024-01-02\n\nInstall the *pump*, see https://127.0.0.1:9/x[the page] and <<sec,here>> or snake_case_name.\n// comment\n\n"
        b"== Steps\n\n[source,python]\n----\n= not a heading\n  x = 1\n----\n\n.Prices\n|===\n|item |price\n\n|flat\n|900\n|===\n\n=== Deep\n\n* one\n* two\n\n////\ngone\n////\n\n"
        b"NOTE: Look.\n\n====\nin a box\n====\n\ninclude::secret.adoc[]\nimage::x.png[a pump, 20]\n\n== End\nlast\n"
    )
    assert file.text == (
        "Guide\n\nInstall the pump, see the page and here or snake_case_name.\n\nSteps\n\n= not a heading\n  x = 1\n\nPrices\n\n"
        "item | price\nflat | 900\n\nDeep\n\n* one\n* two\n\nNOTE: Look.\n\nin a box\n\na pump\n\nEnd\n\nlast"
    )
    assert check(file) == [
        ("", "Guide", "Guide"),
        ("", "Guide > Steps", "Steps"),
        ("", "Guide > Steps > Deep", "Deep"),
        ("", "Guide > End", "End"),
    ]
    assert (file.title, file.metadata) == ("Guide", {"author": "Ada Bell", "date": "2024-01-02"})


def test_org() -> None:
    file = read_org(
        b"#+TITLE: My notes\n#+AUTHOR: Ada\n#+OPTIONS: toc:nil\n# comment\n* TODO [#A] Shopping :home:\n:PROPERTIES:\n:ID: 1\n:END:\nSCHEDULED: <2024-01-02>\n- milk\n- see [[http://127.0.0.1:9/][the shop]] and [[file:x]]\n\n"
        b"** Code\n#+begin_src python\n* not a heading\n  x = 1\n#+end_src\n| a | b |\n|---+---|\n| c | d |\n#+begin_quote\nsaid\n#+end_quote\n* Later\n:LOGBOOK:\nnever closed\n* Last\n*bold* end\n"
    )
    assert file.text == (
        "My notes\n\nShopping\n\n- milk\n- see the shop and file:x\n\nCode\n\n* not a heading\n  x = 1\n\na | b\nc | d\n\nsaid\n\n"
        "Later\n\nLast\n\n*bold* end"
    )
    assert check(file) == [
        ("", "My notes", "My notes"),
        ("", "My notes > Shopping", "Shopping"),
        ("", "My notes > Shopping > Code", "Code"),
        ("", "My notes > Later", "Later"),
        ("", "My notes > Last", "Last"),
    ]
    assert (file.title, file.metadata) == ("My notes", {"author": "Ada"})
    assert read_org(b"* One\n* Two").title == "One"


def test_latex() -> None:
    file = read_tex(
        rb"""\documentclass[a4paper]{article} % note
\usepackage{x}
\newcommand{\me}[1]{never #1}
\title{On \emph{bees}}
\author{J\"urgen \'Etienne}
\begin{document}
\maketitle
\begin{abstract}
We study \textbf{bees}~\cite{a} 50\% of % gone
the time.
\end{abstract}
\section*{Intro \label{s}}
Let $x_1 = \frac{1}{2}$ be \LaTeX{} and ``it''. See \href{http://127.0.0.1:9/}{the page}.\footnote{A note.}
\[ E = mc^2 \]

Next paragraph costs \$5 -- more.
\subsection{Data}
\begin{itemize}
  \item one
  \item two
\end{itemize}
\begin{equation}
a \\ b
\end{equation}
\begin{table}[h]
\begin{tabular}{ll}
\hline
a & b \\
c & d \\
\end{tabular}
\caption{Prices}
\end{table}
\begin{verbatim}
% kept \section{no}
\end{verbatim}
\input{secret}
\section{End}
last
\end{document}
after
"""
    )
    assert file.text == (
        "On bees\n\nWe study bees 50% of the time.\n\nIntro\n\nLet $x_1 = \\frac{1}{2}$ be LaTeX and “it”. See the page.A note. "
        "\\[ E = mc^2 \\]\n\nNext paragraph costs $5 – more.\n\nData\n\n- one\n\n- two\n\na \\\\ b\n\na | b\nc | d\n\nPrices\n\n"
        "% kept \\section{no}\n\nEnd\n\nlast"
    )
    assert check(file) == [
        ("", "On bees", "On bees"),
        ("", "On bees > Intro", "Intro"),
        ("", "On bees > Intro > Data", "Data"),
        ("", "On bees > End", "End"),
    ]
    assert (file.title, file.metadata) == ("On bees", {"author": "Jürgen Étienne"})
    assert read_tex(rb"\section{Intro} We study bees.").text == "Intro\n\nWe study bees."


@pytest.mark.parametrize("read", READERS)
def test_odd_sources(read: Read) -> None:
    for source in (
        "",
        "\n \n",
        "plain",
        "\\",
        "{",
        "$",
        "::",
        "|===",
        "=",
        "*",
        "#+begin_src",
        ".. x::",
        "\x00a",
        "\ufeffb",
        "a\r\nb",
        "[[",
        "\\begin{verbatim}",
        "\\section{",
        "----",
    ):
        check(read(source.encode()))
    assert read(b"").text == ""
    assert "plain" in read(b"plain").text


@pytest.mark.parametrize(
    "part",
    [
        "\\section{",
        "\\(",
        "$",
        "{",
        "\\begin{x}",
        "\\'{",
        "link:",
        "*a",
        "<<",
        "|===\n",
        "[[a",
        "* :a:",
        ":a:\n",
        "* x\n",
        "= a\n\n",
        "`",
        "**",
        "|",
    ],
)
def test_time_is_linear(part: str) -> None:
    for read in READERS[1:]:
        short, long = ((part * (size // len(part))).encode() for size in (25_000, 100_000))
        assert_linear(read, short, long, 4, slack=0.5)


def test_blocks() -> None:
    blocks = Blocks()
    blocks.add("  before \r\n\r\n\r\n\r\nit\x00 \ud83d\ude00 \ud83d")
    blocks.heading(1, " A \n b ")
    blocks.heading(1, " ")
    blocks.place("page 2", keep_headings=True)
    blocks.add("\n")
    blocks.add("  indented\u00a0x  ")
    blocks.place("page 3")
    blocks.heading(2, "C")
    file = blocks.done(" t\n", {"a": "", "b": [], "c": 0, "d": None})
    assert file.text == "before\n\nit 😀 \ufffd\n\nA b\n\n  indented x\n\nC"
    assert check(file) == [
        ("", "", "before"),
        ("", "A b", "A b"),
        ("page 2", "A b", "  indented x"),
        ("page 3", "C", "C"),
    ]
    assert (file.title, file.metadata) == ("t", {"c": 0})
    assert clean("a\u2028b\xadc") == "a\nbc"
    assert given_title("Microsoft Word - a.doc", "untitled", "Document1", " The  plan ") == "The plan"
