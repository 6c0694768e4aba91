"""The entity page: description, documents that mention it, entities mentioned with it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from hyblink.ui import rendering
from hyblink.ui.client import ApiError, Client
from hyblink.ui.views.common import collections_of

_FOUND = 10
_NEIGHBOURS = 12
_SHOWN_CHARS = 200


def show(client: Client, default_kb: str) -> None:
    """Draw the page. The query parameters `kb` and `id` select the entity."""
    found = collections_of(client, "entities")
    if found is None:
        return
    bases, documents = found
    names = [base["name"] for base in bases]
    asked = st.query_params.get("kb", default_kb)
    with st.sidebar:
        kb = st.selectbox("Knowledge base", names, index=names.index(asked) if asked in names else 0)
        words = st.text_input("Find an entity", key="find-entity")
    wanted = st.query_params.get("id", "")
    try:
        if words.strip():
            _found(client, kb, words)
        elif wanted:
            _entity(client, kb, wanted, documents)
        else:
            st.info("Find an entity by its name or by what it is.")
    except ApiError as error:
        st.error(rendering.plain(error))


def _found(client: Client, kb: str, words: str) -> None:
    hits = client.search({"query": words, "collection": kb, "k": _FOUND, "rerank": False})["hits"]
    if not hits:
        st.info("No such entity.")
    for hit in hits:
        description = client.entity(kb, hit["doc_id"])["description"][:_SHOWN_CHARS]
        st.html(
            f"{rendering.entity_link(kb, hit['doc_id'], hit['title'])}"
            f"<div class='hb-text'>{rendering.escape(description)}</div>"
        )


def _entity(client: Client, kb: str, entity_id: str, documents: list[str]) -> None:
    entity = client.entity(kb, entity_id)
    st.html(f"<h1>{rendering.escape(entity['title'])}</h1>")
    st.html(rendering.entity_card(entity))
    if entity["metadata"]:
        with st.expander("Metadata"):
            st.json(entity["metadata"])
    mentioned = False
    for name in documents:
        found = client.mentions(name, entity_id)
        if found["documents"]:
            mentioned = True
            st.html(rendering.mentioned(name, found))
            beside = found["neighbours"][:_NEIGHBOURS]
            if beside:
                st.html("beside " + " · ".join(_neighbour(client, kb, item) for item in beside))
    if not mentioned:
        st.caption("No annotated document mentions it (`hyblink annotate`).")
    st.html(f"<div class='hb-done' data-state='{rendering.escape(entity_id)}'></div>")


def _neighbour(client: Client, kb: str, item: dict[str, Any]) -> str:
    try:
        title = client.entity(kb, item["value"])["title"]
    except ApiError:  # an entity of another knowledge base, or a deleted one
        return f"{rendering.escape(item['value'])} {int(item['count'])}"
    return f"{rendering.entity_link(kb, item['value'], title)} {int(item['count'])}"
