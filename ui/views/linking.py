"""The linking page: a text with its linked mentions, the candidates of each with their signals, and export."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from hyblink.ui import rendering
from hyblink.ui.client import ApiError, Client
from hyblink.ui.examples import LINK_EXAMPLES
from hyblink.ui.signals import Signals
from hyblink.ui.views.common import collections_of, signals_of, what_is_left_out

_SHOWN = 5
_AS_SET = "as the server is set"
_DETECTORS = {
    _AS_SET: [],
    "names": ["dictionary"],
    "span head (ELQ)": ["elq"],
    "names and span head": ["dictionary", "elq"],
}


def show(client: Client, default_kb: str) -> None:
    """Draw the page."""
    found = collections_of(client, "entities")
    if found is None:
        return
    bases, documents = found
    request = _sidebar(bases, default_kb, documents)
    st.title("Entity linking", anchor=False)
    text = st.text_area("Text", key="link-text", height=120, placeholder="a text that mentions things")
    columns = st.columns(len(LINK_EXAMPLES))
    for at, example in enumerate(LINK_EXAMPLES):
        columns[at].button(example, key=f"link-example-{at}", on_click=_use, args=(example,), width="stretch")
    if not text.strip():
        return
    try:
        result = client.link({**request, "text": text, "shown": _SHOWN})
    except ApiError as error:
        st.error(rendering.plain(error))
        return
    _result(signals_of(client), request["collection"], text, result)
    state = json.dumps([text, request], sort_keys=True)
    st.html(f"<div class='hb-done' data-state='{rendering.escape(state)}'></div>")


def _use(text: str) -> None:
    st.session_state["link-text"] = text


def _sidebar(bases: list[dict[str, Any]], default: str, documents: list[str]) -> dict[str, Any]:
    names = [base["name"] for base in bases]
    with st.sidebar:
        name = st.selectbox("Knowledge base", names, index=names.index(default) if default in names else 0)
        chosen = bases[names.index(name)]
        st.caption(
            f"{chosen['documents']:,} entities · {chosen['encoded'] / max(chosen['passages'], 1):.0%} with vectors · "
            f"{chosen['generation']}"
        )
        request: dict[str, Any] = {"collection": name}
        if st.toggle("Own threshold", key="own-threshold"):
            request["threshold"] = st.slider("Links below it become NIL", 0.0, 1.0, 0.5, 0.01, key="threshold")
        detectors = _DETECTORS[st.selectbox("Mentions found by", list(_DETECTORS), key="link-detectors")]
        if detectors:
            request["detectors"] = detectors
        cross = st.selectbox("Cross-encoder", [_AS_SET, "yes", "no"], key="link-cross")
        if cross in {"yes", "no"}:
            request["rerank"] = cross == "yes"
        coherence = st.slider("Coherence of neighbours", 0.0, 5.0, 0.0, 0.5, key="coherence")
        if coherence:
            request["coherence"] = coherence
        evident = st.selectbox(
            "Evidence of documents", ["–", *documents], key="evidence",
            help="Search these annotated documents with the text; the entities that they mention count for more.",
        )  # fmt: skip
        if evident != "–":
            request["evidence"] = {"collection": evident}
        kind = st.text_input("Only kind", key="link-kind")
        if kind.strip():
            request["filter"] = {"term": {"kind": kind.strip()}}
    return request


def _result(signals: Signals, kb: str, text: str, result: dict[str, Any]) -> None:
    links = result["texts"][0]["links"]
    for part, why in result["missing"].items():
        st.caption(f"Without {signals.label(part)}: {rendering.plain(why)}")
    what_is_left_out(result["budget"])
    if not links:
        st.info("No mention found.")
        return
    st.html(rendering.linked_text(text, links))
    calibrated = "calibrated" if result["calibrated"] else "not calibrated for this knowledge base"
    linked = sum(item["entity_id"] is not None for item in links)
    st.caption(
        f"{linked} of {len(links)} mentions linked at {result['threshold']:.2f} · {calibrated} · "
        f"generation {result['generation']} · {result['timings_ms']['total']:.0f} ms"
    )
    left, right = st.columns(2)
    left.download_button(
        "Export as JSON", json.dumps(result, ensure_ascii=False, indent=1), "links.json", width="stretch"
    )
    right.download_button("Export as NIF", rendering.nif(text, links, kb), "links.ttl", width="stretch")
    st.html(
        signals.legend(
            list(dict.fromkeys(s["signal"] for item in links for c in item["candidates"] for s in c["signals"]))
        )
    )
    for number, link in enumerate(links):
        _link(signals, kb, number, link)


def _link(signals: Signals, kb: str, number: int, link: dict[str, Any]) -> None:
    meaning = link["title"] if link["entity_id"] is not None else f"NIL, {link['reason'].replace('_', ' ')}"
    st.html(f"<div id='mention-{number}'></div>")
    name = f"{link['mention']['text']} → {meaning} ({link['probability']:.0%})"
    with st.expander(rendering.plain(name)):
        best = max((sum(max(0.0, s["contribution"]) for s in c["signals"]) for c in link["candidates"]), default=1.0)
        for candidate in link["candidates"]:
            kind = f"<span class='hb-tier'>{rendering.escape(candidate['kind'])}</span>" if candidate["kind"] else ""
            title = rendering.entity_link(kb, candidate["entity_id"], candidate["title"])
            st.html(
                f"<b>{candidate['rank']}. {title}</b>{kind} {candidate['probability']:.1%}"
                + signals.bar(candidate["signals"], best)
                + f"<div class='hb-text'>{rendering.escape(candidate['description'])}</div>"
                + signals.ledger(candidate["signals"], candidate["utility"])
            )
