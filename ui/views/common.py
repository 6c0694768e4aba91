"""What several pages draw alike."""

from __future__ import annotations

from typing import Any

import streamlit as st

from hyblink.ui import rendering
from hyblink.ui.client import ApiError, Client
from hyblink.ui.signals import Signals

_NONE = {
    "entities": "There is no knowledge base yet. Load entities with `hyblink kb load`.",
    "passages": "There is no collection yet. Ingest documents with `hyblink ingest`.",
}


def collections_of(client: Client, kind: str) -> tuple[list[dict[str, Any]], list[str]] | None:
    """The collections of a kind, and the names of the others; None, said on the page, where there are none."""
    st.html(rendering.STYLE)
    try:
        everything = client.collections()
    except ApiError as error:
        st.error(str(error))
        return None
    found = [one for one in everything if one["kind"] == kind]
    if not found:
        st.info(_NONE[kind])
        return None
    return found, [one["name"] for one in everything if one["kind"] != kind]


def signals_of(client: Client) -> Signals:
    """How the service's signals are shown, asked once a visit; said on the page where it does not answer."""
    known = st.session_state.get("signals")
    if not isinstance(known, Signals):
        try:
            known = st.session_state["signals"] = Signals(client.signals())
        except ApiError as error:
            st.error(str(error))
            return Signals([])
    return known
