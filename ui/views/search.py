"""The search page: query, filters, weights, score breakdown per signal and token, document view, paging."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from hyblink.ui import rendering
from hyblink.ui.client import ApiError, Client
from hyblink.ui.examples import EXAMPLES
from hyblink.ui.signals import Signals
from hyblink.ui.views.common import collections_of, signals_of, what_is_left_out

_PAGE = 10
_CANDIDATES = 200
_FACETS = ["kind", "module", "package", "linked_entities"]
_VDR_HELP = (
    "full: encoded query, encoded passage. alpha: the query's own tokens, encoded passage. beta: encoded query, the "
    "passage's bag of tokens. bag: both as bags."
)


def show(client: Client, default_collection: str) -> None:
    """Draw the page."""
    found = collections_of(client, "passages")
    if found is None:
        return
    collections, bases = found
    signals = signals_of(client)
    request = _sidebar(collections, bases, default_collection, signals)
    st.title("hyblink", anchor=False)
    query = st.text_input("Query", key="query", placeholder="words, names, or what you mean", max_chars=2000)
    columns = st.columns(3)
    for at, example in enumerate(EXAMPLES):
        columns[at % 3].button(example, key=f"example-{at}", on_click=_use_example, args=(example,), width="stretch")
    if not query.strip():
        return
    identity = json.dumps([query, request], sort_keys=True)
    if st.session_state.get("identity") != identity:
        st.session_state["identity"] = identity
        st.session_state["page"] = 0
    page = int(st.session_state["page"])
    shown = f"{identity}#{page}"
    fresh = st.session_state.get("shown") != shown  # log each result page once, although Streamlit redraws it
    try:
        result = client.search(
            {
                **request,
                "query": query,
                "k": _PAGE,
                "offset": page * _PAGE,
                "explain": True,
                "facets": _FACETS,
                "log": fresh,
            }
        )
    except ApiError as error:
        st.error(rendering.plain(error))
        return
    if fresh:
        st.session_state["shown"], st.session_state["search-id"] = shown, result["search_id"]
    _result(client, signals, request, query, result, page)


def _use_example(text: str) -> None:
    st.session_state["query"] = text


def _sidebar(collections: list[dict[str, Any]], bases: list[str], default: str, signals: Signals) -> dict[str, Any]:
    names = [c["name"] for c in collections]
    with st.sidebar:
        name = st.selectbox("Collection", names, index=names.index(default) if default in names else 0)
        chosen = next(c for c in collections if c["name"] == name)
        st.caption(
            f"{chosen['documents']:,} documents · {chosen['passages']:,} passages · "
            f"{chosen['encoded'] / max(chosen['passages'], 1):.0%} on the full tier · {chosen['generation']}"
        )
        request: dict[str, Any] = {"collection": name, "candidates": _CANDIDATES}
        used = [s for s in signals.proposing if st.checkbox(signals.label(s), True, key=f"use-{s}")]
        request["signals"] = used or list(signals.proposing)
        if st.toggle("Own weights", key="own-weights"):
            request["weights"] = {
                s: st.slider(signals.label(s), 0.0, 1.0, 0.33, 0.01, key=f"weight-{s}") for s in request["signals"]
            }
            if not any(request["weights"].values()):
                st.warning("At least one weight must be above 0.")
                request.pop("weights")
        vdr = st.selectbox("VDR search", ["auto", "full", "alpha", "beta", "bag"], help=_VDR_HELP)
        if vdr != "auto":
            request["vdr"] = vdr
        rerank = st.selectbox("Re-rank", ["as the server is set", "yes", "no"], key="rerank")
        if rerank in {"yes", "no"}:
            request["rerank"] = rerank == "yes"
        if bases:
            kb = st.selectbox("Use entities of", ["–", *bases], help="Link the query; documents have to be annotated.")
            mode = st.radio("They", ["boost", "filter"], horizontal=True)
            if kb != "–":
                request["entities"] = {"kb": kb, "mode": mode}
        fusion = st.selectbox("Fusion", ["profile", "weighted_sum", "rrf", "comb_sum", "comb_mnz", "isr"])
        if fusion != "profile":
            request["fusion"] = fusion
        clauses: list[dict[str, Any]] = []
        for key in _FACETS:
            value = st.text_input(f"Only {key}", key=f"filter-{key}")
            if value.strip():
                clauses.append({"term": {key: value.strip()}})
        raw = st.text_area("Filter (JSON)", key="filter-json", placeholder='{"range": {"line": {"lt": 100}}}')
        if raw.strip():
            try:
                clauses.append(json.loads(raw))
            except ValueError as error:
                st.error(f"The filter is not JSON: {rendering.plain(error)}")
        if clauses:
            request["filter"] = {"and": clauses}
    return request


def _result(
    client: Client, signals: Signals, request: dict[str, Any], query: str, result: dict[str, Any], page: int
) -> None:
    shown = [s for s in request["signals"] if s not in result["missing"]]
    if result["rerank"] and result["rerank"]["scored"]:
        shown.append("cross")
    st.html(signals.legend(shown))
    for leg in result["legs"]:
        if leg["error"]:
            st.warning(f"{signals.label(leg['signal'])} did not answer: {rendering.plain(leg['error'])}")
    if result["missing"] and not any(leg["error"] for leg in result["legs"]):
        st.caption("No vectors yet: passages are still being encoded.")
    if result["entities"]:
        named = ", ".join(
            f"{rendering.plain(item['title'])} ({item['probability']:.0%})" for item in result["entities"]
        )
        st.caption(f"The query mentions {named}.")
    _not_encoded(result["waiting"])
    _reranked(result["rerank"])
    what_is_left_out(result["budget"])
    if not result["hits"]:
        st.info("Nothing found.")
    best = max((hit["score"] for hit in result["hits"]), default=1.0)
    for hit in result["hits"]:
        _hit(client, signals, request, query, hit, best)
    # Marks that the results of this query and page are complete; browser tests wait for it.
    st.html(f"<div class='hb-done' data-state='{rendering.escape(st.session_state['identity'])}#{page}'></div>")
    left, middle, right = st.columns([1, 3, 1])
    last = (page + 1) * _PAGE >= min(result["pool_documents"], _CANDIDATES)
    left.button("← Previous", disabled=page == 0, on_click=_turn, args=(-1,), key="previous")
    right.button("Next →", disabled=last, on_click=_turn, args=(1,), key="next")
    middle.caption(
        f"Page {page + 1} · {result['pool_documents']} documents in the pool · generation {result['generation']} · "
        f"{result['timings_ms']['total']:.0f} ms"
    )
    _facets(result)
    _why_not(client, signals, request, query)


def _not_encoded(report: dict[str, Any] | None) -> None:
    if report is None:
        return
    now, estimated = report["encoded"], report["estimated"]
    st.caption(
        f"{now + estimated} candidates are not encoded yet: {now} were encoded for this search in "
        f"{report['took_ms']:.0f} ms, the scores of {estimated} are estimated."
    )


def _reranked(report: dict[str, Any] | None) -> None:
    if report is None:
        return
    if report["error"]:
        st.caption(f"Not re-ranked: {rendering.plain(report['error'])}")
        return
    left = f"; {report['skipped']} were not reached in time" if report["skipped"] else ""
    st.caption(f"{report['scored']} documents re-ranked in {report['took_ms']:.0f} ms{left}")


def _turn(by: int) -> None:
    st.session_state["page"] = max(0, int(st.session_state["page"]) + by)


def _judge(client: Client, collection: str, query: str, document_id: str, key: str) -> None:
    """Store a thumb as a judgement: thumbs up is grade 3, thumbs down grade 0."""
    said = st.session_state.get(key)
    if said is None:
        return
    try:
        client.judge(collection, query, document_id, 3 if said else 0)
    except ApiError as error:
        st.toast(f"Not judged: {rendering.plain(error)}")
    else:
        st.toast("Judged.")


def _hit(
    client: Client, signals: Signals, request: dict[str, Any], query: str, hit: dict[str, Any], best: float
) -> None:
    with st.container(border=True):
        passage = hit["passages"][0]
        title = rendering.escape(hit["title"] or hit["doc_id"])
        tier = rendering.escape(passage["tier"])
        st.html(
            f"<b>{hit['rank']}. {title}</b><span class='hb-tier'>{tier}</span>{rendering.where(passage, hit['title'])}"
            + signals.bar(passage["signals"], best)
            + f"<div class='hb-text'>{rendering.highlighted(passage['text'], passage['highlights'])}</div>"
        )
        with st.expander(f"Why? {hit['score']:.4f}"):
            st.html(signals.ledger(passage["signals"], passage["score"]))
            for line in passage["signals"]:
                if line["tokens"]:
                    st.html(signals.tokens(line))
            if hit["metadata"]:
                st.json(hit["metadata"], expanded=False)
        thumb = f"judge-{query}-{hit['doc_id']}"
        said = (client, request["collection"], query, hit["doc_id"], thumb)
        st.feedback("thumbs", key=thumb, on_change=_judge, args=said)
        if st.toggle("Whole document", key=f"document-{hit['doc_id']}"):
            try:
                if st.session_state.get("search-id"):
                    client.click(st.session_state["search-id"], hit["doc_id"])
                document = client.document(request["collection"], hit["doc_id"])
            except ApiError as error:
                st.error(rendering.plain(error))
            else:
                _original(client, request["collection"], hit["doc_id"], document)
                st.html(f"<div class='hb-text'>{rendering.escape(document['text'])}</div>")


def _original(client: Client, collection: str, document_id: str, document: dict[str, Any]) -> None:
    """A button that saves the file that the document was read from."""
    if "file" not in document["metadata"] or "source" not in document["metadata"]:
        return
    try:
        content, media_type = client.source(collection, document_id)
    except ApiError as error:
        st.caption(rendering.plain(error))
        return
    name = str(document["metadata"]["file"]).rsplit("/", 1)[-1]
    st.download_button("Save the original", content, name, media_type, key=f"original-{document_id}")


def _facets(result: dict[str, Any]) -> None:
    counted = {key: counts for key, counts in result["facets"].items() if counts}
    if not counted:
        return
    with st.expander("Facets (over the candidates)"):
        for key, counts in counted.items():
            st.html(rendering.facet(key, counts[:12]))


def _why_not(client: Client, signals: Signals, request: dict[str, Any], query: str) -> None:
    with st.expander("Why is a document not here?"):
        wanted = st.text_input("Document id", key="why-not")
        if not wanted.strip():
            return
        try:
            answer = client.explain({**request, "query": query, "k": _PAGE, "document_id": wanted.strip()})
        except ApiError as error:
            st.error(rendering.plain(error))
            return
        st.write(rendering.plain(answer["explanation"]))
        st.html(signals.ledger(answer["signals"], answer["score"]))
        for leg in answer["legs"]:
            score = "–" if leg["score"] is None else f"{leg['score']:.4f}"
            rank = leg["rank"] or "–"
            st.write(f"{signals.label(leg['signal'])}: exact rank {rank}, score {score}, asked for {leg['depth']}")
