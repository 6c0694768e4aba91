"""The administration page: generations, retraining, dead letters, audit log."""

from __future__ import annotations

from typing import Any

import streamlit as st

from hyblink.ui import rendering
from hyblink.ui.client import ApiError, Client

_ACTS = 50
_RETRAININGS = 3
_CHOICES = {
    "queued": (("cancel", "Cancel"),),
    "running": (("cancel", "Cancel"),),
    "waiting": (("approve", "Approve"), ("cancel", "Throw away")),
    "failed": (("resume", "Resume"),),
    "cancelled": (("resume", "Resume"),),
}


def show(client: Client) -> None:
    """Draw the page."""
    st.html(rendering.STYLE)
    try:
        names = [collection["name"] for collection in client.collections()]
        if names:
            chosen = st.selectbox("Collection", names)
            _generations(client, chosen)
            _retraining(client, chosen)
        _dead_letters(client)
        with st.expander("Audit log"):
            st.dataframe(
                [{name: act[name] for name in ("at", "by", "act", "outcome")} for act in client.audit(_ACTS)],
                hide_index=True,
            )
    except ApiError as error:
        st.error(rendering.plain(error))


def _generations(client: Client, collection: str) -> None:
    st.subheader("Generations", anchor=False)
    with st.form("rebuild", clear_on_submit=True, border=False):
        left, right = st.columns([4, 1], vertical_alignment="bottom")
        note = left.text_input("Note", placeholder="why", max_chars=200)
        if right.form_submit_button("Build the next one"):
            client.rebuild(collection, note)
    _listed(client, collection)


@st.fragment(run_every=2.0)  # type: ignore[untyped-decorator]
def _listed(client: Client, collection: str) -> None:
    """The list of generations and running builds, refreshed every 2 seconds."""
    try:
        for job in client.jobs(20):
            if job["kind"] == "rebuild" and job["collection"] == collection and job["state"] in {"queued", "running"}:
                told = ", ".join(f"{count:,} {stage}" for stage, count in job["progress"].items())
                st.caption(f"Being built: {rendering.plain(told or job['state'])}")
        found = client.generations(collection)
        for result in reversed(found["generations"]):
            _generation(client, collection, result, result["id"] == found["current"])
    except ApiError as error:
        st.error(rendering.plain(error))


def _generation(client: Client, collection: str, item: dict[str, Any], answers: bool) -> None:
    text, button = st.columns([5, 1])
    text.html(rendering.generation_line(item, answers))
    if button.button("Publish", key=f"publish-{collection}-{item['id']}", disabled=answers):
        client.publish(collection, item["id"])
        st.rerun(scope="fragment")


def _retraining(client: Client, collection: str) -> None:
    st.subheader("Retraining", anchor=False)
    with st.form("retrain", border=False):
        rows, held_out, auto, button = st.columns([2, 2, 3, 2], vertical_alignment="bottom")
        body: dict[str, Any] = {
            "collection": collection,
            "rows": rows.number_input("Questions to learn from", 1, 100_000, 2000),
            "held_out": held_out.number_input("Questions held out", 0, 10_000, 400),
            "publish": "auto" if auto.checkbox("Publish what passes the gate") else "approve",
        }
        with st.expander("Training and gate"):
            steps, worse, gain, overlap = st.columns(4)
            body["options"] = {"steps": str(steps.number_input("Steps", 1, 100_000, 200))}
            body["gate"] = {
                "worse": worse.number_input("Judged queries may lose", 0.0, 1.0, 0.02, 0.01),
                "gain": gain.number_input("Held-out questions gain more than", -1.0, 1.0, 0.0, 0.01),
                "least_overlap": overlap.number_input("Least overlap of rankings", 0.0, 1.0, 0.5, 0.05),
            }
        if button.form_submit_button("Retrain", type="primary"):
            client.retrain(body)
    _retrainings(client, collection)


@st.fragment(run_every=2.0)  # type: ignore[untyped-decorator]
def _retrainings(client: Client, collection: str) -> None:
    """The newest retraining jobs, refreshed every 2 seconds."""
    try:
        jobs = [item for item in client.jobs(_ACTS) if item["kind"] == "retrain" and item["collection"] == collection]
        for job in jobs[:_RETRAININGS]:
            st.html(rendering.retraining(job))
            for place, (act, label) in zip(st.columns(6), _CHOICES.get(job["state"], ()), strict=False):
                if place.button(label, key=f"{act}-{job['id']}"):
                    client.approve(job["id"]) if act == "approve" else client.change_job(job["id"], act)
                    st.rerun(scope="fragment")
    except ApiError as error:
        st.error(rendering.plain(error))


def _dead_letters(client: Client) -> None:
    letters = client.dead_letters()
    if not letters:
        return
    st.subheader("Failed for good", anchor=False)
    for letter in letters:
        text, button = st.columns([5, 1])
        text.html(rendering.dead_letter(letter))
        if button.button("Try again", key=f"replay-{letter['id']}"):
            client.replay(letter["id"])
            st.rerun()
