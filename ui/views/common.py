"""Helpers shared by several pages."""

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
    """The collections of `kind` and the names of all others.

    Returns None if there are none or the service does not respond, and shows that on the page.
    """
    st.html(rendering.STYLE)
    try:
        everything = client.collections()
    except ApiError as error:
        st.error(rendering.plain(error))
        return None
    found = [item for item in everything if item["kind"] == kind]
    if not found:
        st.info(_NONE[kind])
        return None
    return found, [item["name"] for item in everything if item["kind"] != kind]


def signals_of(client: Client) -> Signals:
    """The signals of the service, cached in the session. If the call fails, shows the error and returns no signals."""
    known = st.session_state.get("signals")
    if not isinstance(known, Signals):
        try:
            known = st.session_state["signals"] = Signals(client.signals())
        except ApiError as error:
            st.error(rendering.plain(error))
            return Signals([])
    return known


def what_is_left_out(report: dict[str, Any] | None) -> None:
    """Say what an answer lacks because the request reached its budget."""
    if report and report["left_out"]:
        st.warning(
            f"The request used its budget of {report['cpu_s']:g} CPU-seconds or its memory. Left out: "
            + rendering.plain("; ".join(report["left_out"]))
        )
