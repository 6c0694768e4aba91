"""The language of documents: given, found out, or left open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.language import language_of

SENTENCES = {
    "en": "The lease ends in May, and the tenants have to tell the owner in time.",
    "de": "Der Vertrag endet im Mai, und die Mieter müssen es rechtzeitig sagen.",
    "fr": "Le bail se termine en mai et les locataires doivent le dire à temps.",
    "es": "El contrato termina en mayo y los inquilinos deben avisar a tiempo.",
    "it": "Il contratto scade a maggio e gli inquilini devono avvisare in tempo.",
    "pl": "Umowa kończy się w maju, a lokatorzy muszą o tym wcześniej powiedzieć.",
    "ru": "Договор заканчивается в мае, и жильцы должны сообщить об этом вовремя.",
    "el": "Το συμβόλαιο λήγει τον Μάιο.",
    "zh": "合同五月到期，租户必须及时通知。",
    "ja": "契約は五月に終わるので、早めに知らせてください。",
    "ko": "계약은 오월에 끝납니다.",
    "tr": "Sözleşme mayısta bitiyor ve kiracılar bunu zamanında söylemeli.",
}


@pytest.mark.parametrize("code", list(SENTENCES))
def test_languages(code: str) -> None:
    assert language_of(SENTENCES[code]) == code


@pytest.mark.parametrize("text", ["", "12,499.00", "json.dumps(x)", "ok", "🙂🙂🙂", "def f(x):\n    return x + 1"])
def test_what_says_too_little_is_left_open(text: str) -> None:
    assert language_of(text) == ""


def test_it_is_metadata_and_what_is_given_is_believed(tmp_path: Path) -> None:
    rows = [
        {"id": "found", "text": SENTENCES["fr"]},
        {"id": "given", "text": SENTENCES["fr"], "lang": "oc"},
        {"id": "kept", "text": SENTENCES["fr"], "metadata": {"lang": "x"}},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "brief.txt").write_text(SENTENCES["de"])
    (tmp_path / "code.py").write_text(f"# {SENTENCES['de']}\n")
    found = {one.document.id: one.document for one in FileSource(tmp_path).items() if one.document}
    said = {name: one.metadata.get("lang") for name, one in found.items()}
    assert said == {"found": "fr", "given": "oc", "kept": "x", "brief.txt": "de", "code.py": None}
    assert (found["found"].lang, found["given"].lang) == ("", "oc"), "what is encoded does not depend on a guess"
    off = [one.document for one in FileSource(tmp_path, languages=False).items() if one.document]
    assert [one.metadata.get("lang") for one in off] == [None, None, None, None, "x"]
