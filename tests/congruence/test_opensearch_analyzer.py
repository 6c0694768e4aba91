"""The analyzers of the index template make the same terms as ours: on real text, on tricky text, and on noise.

Known to differ, and left out here: letters that Unicode added after version 12.1 (Lucene's tokenizer does not know
them), Katakana joined by an underscore, combining or format characters and stray emoji modifiers after CJK characters.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from support.services import SOAK

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.checks import fold
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.python_package import PythonSource

pytestmark = pytest.mark.services

COUNT = 10_000 if SOAK else 1_000
TEMPLATE = Path(__file__).resolve().parents[2] / "opensearch" / "templates" / "analysis.json"
TRICKY = [
    "The dogs' owner's json.dump and 機械学習",
    "O'Neil's dogs’ bones rock'n'roll it's O’Reilly’s x's' S's",
    "__init__ to_dict a_b_ _x_ __ 1_000 _1 1_",
    "3.14 1,000 192.168.1.1 v1.2.3 c.1 1.a x:1 a:b a.b. U.S.A.",
    "added adding adds egged erring internal universal university organization skis",
    "カタカナ ひらがな 한국어 字 a字b 日本語テキスト 時々 野々市 K팝 2020년 한국어.영어 한국어カタ漢字",
    "👍🏽 ok 👨‍👩‍👧 ❤️ 1️⃣ 2⃣ #️⃣ 🇩🇪 🇩 ★ ♭ ® © ™ ↔",
    "naïve Café ﬁ ñandú İstanbul ΑΣ ΣΑΣ ½ ² ｶﾀｶﾅ ＡＢＣ a\u00adb",
    "שלום עולם צה״ל א' א\"ב ภาษาไทย",
    "foo-bar foo/bar foo@bar.com http://x.y/z?a=b a'b'c a''b …a…",
    "x" * 300,
]
NOISE = "ab1.,:;'’‘·_ 2éßʯ²¼º\u2024…- 機한국👍#★®々ひาท\u05d0\"🇩🇪İΣσς"


def texts() -> Iterator[str]:
    yield from TRICKY
    rng = random.Random(7)
    for _ in range(COUNT // 4):
        yield "".join(rng.choice(NOISE) for _ in range(rng.randrange(1, 14)))
    folder = os.environ.get("HYBLINK_DATA")
    sources: list[FileSource | PythonSource] = [PythonSource("python")]
    if folder:
        sources += [FileSource(Path(folder) / name) for name in ("el-wiki/entities.jsonl.gz", "cmrc2018", "stard-zh")]
    streams = [(item.document.text[:3000] for item in one.items(None) if item.document) for one in sources]
    yield from (text for row in itertools.zip_longest(*streams) for text in row if text)


def test_terms_are_ours(local_cluster: Callable[..., Cluster]) -> None:
    state = local_cluster().state()
    assert state is not None
    settings = json.loads(TEMPLATE.read_text())["template"]["settings"] | {"number_of_replicas": 0}
    with httpx.Client(base_url=state.url, timeout=60) as client:
        client.put("/analysis", json={"settings": settings}).raise_for_status()

        def theirs(name: str, some: list[str]) -> list[str]:
            answer = client.post("/analysis/_analyze", json={"analyzer": f"hyblink_{name}", "text": some})
            return [token["token"] for token in answer.raise_for_status().json()["tokens"]]

        different = []
        chosen = [fold(text) for text in itertools.islice(texts(), COUNT)]
        assert len(chosen) == COUNT
        for name in ("english", "standard"):
            analyzer = Analyzer(name)
            for at in range(0, COUNT, 10):
                some = chosen[at : at + 10]
                if theirs(name, some) != [term for text in some for term in analyzer.terms(text)]:
                    different += [(name, text) for text in some if theirs(name, [text]) != analyzer.terms(text)]
        client.delete("/analysis")
    assert different == []
