"""Linking end to end over the embedded engine: detection, candidates, decisions, a knowledge base that changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError, NotFoundError, TooLargeError
from hyblink.app.core.types.linking import LinkRequest, Text
from hyblink.app.core.types.ranking import Signal
from hyblink.app.linking.disambiguation import SHIPPED
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.generations import build_context, encoders_of, roll_back
from hyblink.indexer.generations.build import build as build_generation
from tests.support.linking import (
    KB,
    kb,  # noqa: F401 - a fixture
    linked,
    spans,
)


def test_names_are_found_longest_first_in_their_case_and_number(kb: App) -> None:
    assert spans(kb, "Monty Python wrote no Python; HASH TABLES and a hash-table did.") == [
        "Monty Python", "Python", "HASH TABLES", "hash-table",
    ]  # fmt: skip
    assert spans(kb, "It is said that IT needs C, not c.") == ["IT", "C"]  # short names in their own case only
    assert spans(kb, "東京に行く。 \U0001f40d pythons!") == ["東京", "pythons"]
    assert spans(kb, "nothing here") == []


def test_equal_names_share_the_prior(kb: App) -> None:
    found = linked(kb, "A large snake: the Python is not venomous.", shown=20).texts[0].links[0]
    prior = {one.entity_id: {s.signal.value: s.raw for s in one.signals}["prior"] for one in found.candidates}
    assert prior["py-lang"] == prior["py-snake"] == pytest.approx(0.5)
    assert prior["monty"] == 0.0


def test_a_qualified_title_is_found_by_its_name(app: App) -> None:
    ensure_collection(app, entity_spec(KB))
    rows = [
        {"id": "planet", "title": "Mercury (planet)", "description": "The planet nearest to the Sun."},
        {"id": "metal", "title": "Mercury (element)", "description": "A liquid metal."},
        {"id": "god", "title": "Mercurius", "aliases": ["Mercury"], "description": "A Roman god."},
        {"id": "town", "title": "Newark, New Jersey", "description": "A city."},
    ]
    assert not app.entities.bulk(KB, rows).errors
    assert app.jobs.wait(60)
    assert spans(app, "Mercury, seen from Newark") == ["Mercury", "Newark"]
    made = linked(app, "Mercury, seen from Newark", signals=(Signal.PRIOR,))
    candidates = made.texts[0].links[0].candidates
    prior = {c.entity_id: s.raw for c in candidates for s in c.signals if s.signal is Signal.PRIOR}
    assert prior == pytest.approx({"god": 0.5, "planet": 0.25, "metal": 0.25})  # an alias outweighs what was shortened
    exact = linked(app, "Mercury (planet) shines").texts[0].links[0]
    assert (exact.mention.text, exact.entity_id) == ("Mercury (planet)", "planet")
    assert linked(app, "The planet Mercury is near the Sun").texts[0].links[0].entity_id == "planet"


def test_every_candidate_s_lines_sum_to_its_utility(kb: App) -> None:
    result = linked(kb, "Python and Lisp", shown=20, coherence=0.5)
    assert result.generation == "g000001"
    assert set(result.missing) <= {"cross"}
    for one in result.texts[0].links:
        assert one.candidates[0].probability <= 1
        assert sum(c.probability for c in one.candidates) <= 1 + 1e-6
        assert [c.rank for c in one.candidates] == list(range(1, len(one.candidates) + 1))
        for candidate in one.candidates:
            total = sum(line.contribution for line in candidate.signals)
            assert total == pytest.approx(candidate.utility, abs=1e-6)
        assert {line.signal.value for line in one.candidates[0].signals} == {
            "bm25",
            "vdr",
            "dense",
            "prior",
            "context",
            "coherence",
        }


def test_a_probability_is_the_same_however_many_candidates_are_asked_for(kb: App) -> None:
    def found(**options: object):  # type: ignore[no-untyped-def]
        return linked(kb, "A snake: Python", shown=64, **options).texts[0].links[0]

    whole = found()
    assert found(candidates=256) == whole
    for few in (1, 2, 4):
        made = found(candidates=few)
        assert made.probability == pytest.approx(whole.probability, abs=0.05)  # others share in it
        assert len(made.candidates) == few
        assert [s.contribution for s in made.candidates[0].signals] == [
            s.contribution for s in whole.candidates[0].signals
        ]
    # Excluding an entity is the same as not having it.
    excluded = found(exclude=("py-lang",))
    kb.entities.remove(KB, ["py-lang"])
    assert excluded.probability == pytest.approx(found().probability, abs=0.01)  # idf has changed a little
    assert [c.entity_id for c in excluded.candidates] == [c.entity_id for c in found().candidates]


def test_a_knowledge_base_of_one_entity_links_to_it(app: App) -> None:
    ensure_collection(app, entity_spec(KB))
    app.entities.bulk(KB, [{"id": "z", "title": "Zanzibar", "description": "An island in the Indian Ocean."}])
    assert app.jobs.wait(60)
    request = LinkRequest((Text("They went to Zanzibar by ship."),), rerank=False)
    (link,) = app.linker.link(KB, request).texts[0].links
    assert (link.entity_id, link.reason) == ("z", "linked")
    others = linked(app, "They went by ship to", detectors=None)
    assert others.texts[0].links == ()
    (nil,) = app.linker.link(KB, LinkRequest((Text("The Queen spoke.", ((4, 9),)),), rerank=False)).texts[0].links
    assert nil.entity_id is None


def test_a_filter_narrows_and_says_that_it_was_not_fitted_so(kb: App) -> None:
    kb.catalog.save_link_profile(
        KB, replace(SHIPPED, fast=replace(SHIPPED.fast, knots=((0.0, 0.0), (1.0, 1.0))), mention_encoder="")
    )
    request = LinkRequest((Text("a large Python snake"),), filter={"term": {"kind": "animal"}}, rerank=False)
    result = kb.linker.link(KB, request)
    assert (result.texts[0].links[0].entity_id, result.calibrated) == ("py-snake", False)


def test_what_is_unsure_is_nil_and_says_why(kb: App) -> None:
    request = LinkRequest((Text("Python and Lisp", ((0, 6), (7, 10))),), threshold=1.0, rerank=False)
    found = kb.linker.link(KB, request).texts[0].links
    assert [(one.entity_id, one.reason) for one in found] == [(None, "below_threshold")] * 2
    assert found[0].candidates  # what was rejected is shown
    empty = LinkRequest((Text("Python", ((0, 6),)),), filter={"term": {"kind": "planet"}}, rerank=False)
    one = kb.linker.link(KB, empty).texts[0].links[0]
    assert (one.entity_id, one.reason, one.candidates) == (None, "no_candidates", ())


def test_filters_and_exclusions_hold_for_every_signal(kb: App) -> None:
    only = linked(kb, "Python", filter={"term": {"kind": "animal"}}, shown=20).texts[0].links[0]
    assert [one.entity_id for one in only.candidates] == ["py-snake"]
    without = linked(kb, "Python", exclude=("py-snake", "unknown"), shown=20).texts[0].links[0]
    assert "py-snake" not in {one.entity_id for one in without.candidates}
    own = LinkRequest((Text("Python", None, ("py-lang",)), Text("Python")), rerank=False, threshold=0.0, shown=20)
    first, second = kb.linker.link(KB, own).texts
    assert "py-lang" not in {one.entity_id for one in first.links[0].candidates}
    assert "py-lang" in {one.entity_id for one in second.links[0].candidates}


def test_an_entity_is_a_candidate_at_once_and_never_after_it_was_removed(kb: App) -> None:
    assert spans(kb, "the gizmo") == []
    kb.entities.bulk(KB, [{"id": "g", "title": "Gadget", "aliases": ["gizmo"]}])
    assert linked(kb, "the gizmo").texts[0].links[0].entity_id == "g"
    record = new_record(kb, kb.catalog.spec(KB), parent=kb.catalog.current(KB))
    build_generation(build_context(kb), record, **encoders_of(kb, record), keep=3)
    assert linked(kb, "the gizmo").texts[0].links[0].entity_id == "g"
    assert [item.status for item in kb.entities.remove(KB, ["g", "nobody"]).items] == ["deleted", "not_found"]
    assert spans(kb, "the gizmo") == []
    assert roll_back(kb, KB) == "g000001"
    assert spans(kb, "the gizmo") == []  # though the earlier generation had it
    given = LinkRequest((Text("gizmo", ((0, 5),)),), rerank=False, threshold=0.0, shown=50)
    assert "g" not in {one.entity_id for one in kb.linker.link(KB, given).texts[0].links[0].candidates}
    with pytest.raises(NotFoundError, match="no such entity"):
        kb.entities.get(KB, "g")


def test_a_changed_name_is_the_only_one(kb: App) -> None:
    kb.entities.bulk(KB, [{"id": "lisp", "title": "Scheme", "description": "A dialect."}])
    assert spans(kb, "Lisp or Scheme") == ["Scheme"]


def test_the_dictionary_equals_one_built_anew_after_any_changes(kb: App) -> None:
    rng = np.random.default_rng(3)
    names = ["alpha", "beta", "gamma ray", "delta", "Eta", "theta wave"]
    text = " ".join(names) + " " + " ".join(names).upper()
    for step in range(60):
        picked = [names[at] for at in rng.integers(len(names), size=3)]
        ident = f"e{rng.integers(8)}"
        if rng.random() < 0.3:
            kb.entities.remove(KB, [ident])
        else:
            kb.entities.bulk(KB, [{"id": ident, "title": picked[0], "aliases": picked[1:]}], encode=False)
        if step % 7 == 0:
            now = [(one.mention, one.candidates[0].title) for one in linked(kb, text).texts[0].links]
            kb.linker._retrieval._dictionaries._made.clear()
            assert now == [(one.mention, one.candidates[0].title) for one in linked(kb, text).texts[0].links]


def test_an_older_moment_sees_no_later_entity(kb: App) -> None:
    before = kb.catalog.open(KB).snapshot
    kb.entities.bulk(KB, [{"id": "g", "title": "Gizmo"}])
    kb.entities.remove(KB, ["lisp"])
    now = kb.catalog.open(KB).snapshot
    text = "Gizmo and Lisp"
    dictionaries = kb.linker._retrieval._dictionaries
    assert [one.text for one in dictionaries.view(KB, "g000001", now).detect(text)] == ["Gizmo"]
    # A request that began before: the new name is not there yet, the removed one is not linked any more.
    assert [one.text for one in dictionaries.view(KB, "g000001", before).detect(text)] == []


@pytest.mark.parametrize(
    ("text", "span", "message"),
    [
        ("abc", (1, 1), "bad mention"),
        ("abc", (2, 1), "bad mention"),
        ("abc", (-1, 2), "bad mention"),
        ("abc", (0, 4), "bad mention"),
        ("a  c", (1, 3), "blank"),
        ("cafe\u0301", (0, 4), "combining marks"),
        ("हिन्दी भाषा", (0, 1), "combining marks"),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", (0, 3), "combining marks"),  # between two flags is no third
        ("\u1112\u1161\u11ab x", (0, 2), "combining marks"),
        ("Python\r\nGo", (0, 7), "combining marks"),
        ("\U0001f468\u200d\U0001f469x", (0, 1), "combining marks"),
    ],
)
def test_bad_spans_are_refused(kb: App, text: str, span: tuple[int, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        kb.linker.link(KB, LinkRequest((Text(text, (span,)),)))


def test_no_detector_cuts_a_character(app: App) -> None:
    ensure_collection(app, entity_spec(KB))
    names = ["Café Noir", "Cafe", "Python", "दिल", "भारतीय प्रौद्योगिकी संस्थान दिल्ली", "서울", "中华人民共和国全国人民代表大会常务委员会",
             "الجُمْهُورِيَّة العَرَبِيَّة السُّورِيَّة", "가각"]  # fmt: skip
    assert not app.entities.bulk(KB, [{"id": str(at), "title": one} for at, one in enumerate(names)]).errors
    for text, found in (
        ("Cafe\u0301 Noir is open", ["Cafe\u0301 Noir"]),
        ("a Cafe is open", ["Cafe"]),
        ("Python\u0301 is none", []),
        ("दिल्लगी मत करो", []),
        ("मेरा दिल", ["दिल"]),
        ("यह भारतीय प्रौद्योगिकी संस्थान दिल्ली है", ["भारतीय प्रौद्योगिकी संस्थान दिल्ली"]),
        ("\u1109\u1165\u110b\u116e\u11af\u110b\u1166\u1109\u1165", ["\u1109\u1165\u110b\u116e\u11af"]),
        ("在中华人民共和国全国人民代表大会常务委员会上", ["中华人民共和国全国人民代表大会常务委员会"]),
        ("في الجُمْهُورِيَّة العَرَبِيَّة السُّورِيَّة", ["الجُمْهُورِيَّة العَرَبِيَّة السُّورِيَّة"]),
        ("가가\u11a8 x", ["가가\u11a8"]),
    ):
        assert spans(app, text) == found


def test_overlapping_spans_are_linked_each_by_itself(kb: App) -> None:
    text = "\U0001f40d Monty Python"
    request = LinkRequest((Text(text, ((2, 14), (8, 14), (8, 14))),), threshold=0.0, rerank=False)
    found = kb.linker.link(KB, request).texts[0].links
    assert [one.mention.text for one in found] == ["Monty Python", "Python", "Python"]
    assert found[0].entity_id == "monty"
    assert found[1] == found[2]


def test_limits_are_stated(kb: App) -> None:
    with pytest.raises(TooLargeError, match="too long"):
        kb.linker.link(KB, LinkRequest((Text("x" * 1_000_001),)))
    with pytest.raises(TooLargeError, match="too many mentions"):
        kb.linker.link(KB, LinkRequest((Text("x", ((0, 1),) * 10_001),)))
    with pytest.raises(TooLargeError, match="too many texts"):
        kb.linker.link(KB, LinkRequest((Text("x"),) * 1001))
    with pytest.raises(TooLargeError, match="too many texts"):
        kb.linker.link(KB, LinkRequest((Text("x", ()),) * 10_001))
    kb.linker.check(
        LinkRequest((Text("x", ((0, 1),)),) * 10_000)
    )  # mentions in contexts are as many as mentions may be
    with pytest.raises(InvalidInputError, match=r"texts\[1\].mentions\[2\]: bad mention"):
        kb.linker.check(LinkRequest((Text("x"), Text("xyz", ((0, 1), (1, 2), (3, 3))))))
    with pytest.raises(InvalidInputError, match="nothing to link"):
        kb.linker.link(KB, LinkRequest(()))
    with pytest.raises(InvalidInputError, match="candidates is out of range"):
        kb.linker.link(KB, LinkRequest((Text("x"),), candidates=0))
    with pytest.raises(InvalidInputError, match="unknown detector"):
        kb.linker.link(KB, LinkRequest((Text("x"),), detectors=("oracle",)))
    assert kb.linker.link(KB, LinkRequest((Text(""),))).texts[0].links == ()


def test_a_megabyte_and_thousands_of_mentions(kb: App) -> None:
    text = ("The Python of Monty Python " * 200 + "x" * 3_000)[:1_000_000]
    result = linked(kb, text, shown=1)
    assert len(result.texts[0].links) == 400
    assert {one.entity_id for one in result.texts[0].links if one.mention.text == "Monty Python"} == {"monty"}
    assert linked(kb, "word " * 200_000).texts[0].links == ()
    long = "Python " * 500
    given = LinkRequest((Text(long, ((0, len(long) - 1),)),), rerank=False)
    assert len(kb.linker.link(KB, given).texts[0].links) == 1  # a mention longer than any model reads


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_text_can_be_linked(text: str) -> None:
    for surface in spans(_SHARED[0], text.replace("\x00", "").encode("utf-8", "ignore").decode()) if _SHARED else []:
        assert surface


_SHARED: list[App] = []


@pytest.fixture(autouse=True)
def _shared(request: pytest.FixtureRequest) -> None:
    if request.node.originalname == "test_any_text_can_be_linked":
        _SHARED[:] = [request.getfixturevalue("kb")]
