"""The ingestion page: upload a file, watch jobs, cancel and resume them."""

from __future__ import annotations

from typing import Any

import streamlit as st

from hyblink.ui import rendering
from hyblink.ui.client import ApiError, Client

_SHOWN = 20
_ACTS = {"queued": "cancel", "running": "cancel", "cancelled": "resume", "failed": "resume"}


def show(client: Client) -> None:
    """Draw the page."""
    st.html(rendering.STYLE)
    formats = _formats(client)
    with st.form("ingest", clear_on_submit=True):
        left, right = st.columns([2, 1])
        sent = left.file_uploader("File to ingest", type=_suffixes(formats), help=_about(formats))
        collection = right.text_input("Into the collection", "default")
        whole = right.checkbox("Do not cut documents")
        begun = st.form_submit_button("Ingest")
    if begun and sent is None:
        st.warning("Choose a file first.")
    elif begun and sent is not None:
        try:
            upload = client.upload(sent.name, sent.getvalue())
            client.begin({"collection": collection, "upload": upload["id"], "whole": whole})
        except ApiError as error:
            st.error(rendering.plain(error))
    _state(client)


def _formats(client: Client) -> list[dict[str, Any]]:
    """The supported file formats, cached in the session. If the call fails, shows the error and returns none."""
    if "formats" not in st.session_state:
        try:
            st.session_state["formats"] = client.formats()
        except ApiError as error:
            st.error(rendering.plain(error))
            return []
    return list(st.session_state["formats"])


def _suffixes(formats: list[dict[str, Any]]) -> list[str] | None:
    """The file name suffixes that can be uploaded, without dot. None allows any."""
    return sorted({suffix.lstrip(".") for item in formats for suffix in item["suffixes"]} | {"gz"}) if formats else None


def _about(formats: list[dict[str, Any]]) -> str:
    lines = [f"- {', '.join(item['suffixes'])}: {item['about']}" for item in formats if item["suffixes"]]
    return "\n".join([*lines, "- .gz behind a name: the same, compressed"])


@st.fragment(run_every=2.0)  # type: ignore[untyped-decorator]
def _state(client: Client) -> None:
    """Workers and jobs, refreshed every 2 seconds."""
    try:
        jobs = client.jobs(_SHOWN)
        _queues(client)
        for job in jobs:
            _job(client, job)
        if not jobs:
            st.caption("No job yet.")
    except ApiError as error:
        st.error(rendering.plain(error))


def _queues(client: Client) -> None:
    try:
        found = client.queues()
    except ApiError:  # for administrators only
        return
    waiting = {name: count for name, count in found["waiting"].items() if count}
    parts = [f"{len(found['workers'])} workers"]
    parts += [f"{count} passages of {name} wait for vectors" for name, count in waiting.items()]
    if found["dead_letters"]:
        parts.append(f"{found['dead_letters']} dead letters (`hyblink jobs dead`)")
    st.caption(" · ".join(parts))


def _job(client: Client, job: dict[str, Any]) -> None:
    told = job["progress"]
    text, button = st.columns([5, 1])
    with text:
        st.html(rendering.job_line(job))
        if job["state"] in {"queued", "running"} and told.get("bytes_total"):
            st.progress(min(1.0, told["bytes"] / told["bytes_total"]))
        if told.get("rejected"):
            with st.expander(f"{told['rejected']} rows rejected"):
                st.html(rendering.rejects(client.rejects(job["id"])))
    act = _ACTS.get(job["state"])
    if act and button.button(act.capitalize(), key=f"{act}-{job['id']}"):
        client.change_job(job["id"], act)
        st.rerun(scope="fragment")
