"""Entry point of the UI: `streamlit run ui/streamlit_app.py`. `HYBLINK_API_URL` names the service."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Streamlit puts the script's folder first on sys.path, where its files would shadow packages of the same name.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]

import streamlit as st  # noqa: E402

from hyblink.ui import hosts  # noqa: E402
from hyblink.ui.views import admin, entity, jobs, linking, search, signing_in  # noqa: E402

_URL = os.environ.get("HYBLINK_API_URL", "http://127.0.0.1:8080")


def _search() -> None:
    search.show(st.session_state["client"], os.environ.get("HYBLINK_UI_COLLECTION", "default"))


def _linking() -> None:
    linking.show(st.session_state["client"], os.environ.get("HYBLINK_UI_KB", "entities"))


def _entity() -> None:
    entity.show(st.session_state["client"], os.environ.get("HYBLINK_UI_KB", "entities"))


def _jobs() -> None:
    jobs.show(st.session_state["client"])


def _admin() -> None:
    admin.show(st.session_state["client"])


def _pages(role: str) -> None:
    pages = [
        st.Page(_search, title="Search", url_path="search", default=True),
        st.Page(_linking, title="Linking", url_path="linking"),
        st.Page(_entity, title="Entities", url_path="entity"),
    ]
    if role in {"ingest", "admin"}:
        pages.append(st.Page(_jobs, title="Ingestion", url_path="ingestion"))
    if role == "admin":
        pages.append(st.Page(_admin, title="Administration", url_path="administration"))
    st.navigation(pages).run()


st.set_page_config(page_title="hyblink", page_icon="🔎", layout="wide")
refused = hosts.refusal(st.context.headers, os.environ.get("HYBLINK_UI_HOSTS", ""))
if refused:
    st.error(refused)
    st.stop()
who = signing_in.who(_URL, os.environ.get("HYBLINK_API_KEY"))
if who is not None:
    _pages(who["role"])
