"""Entry point of the UI: `streamlit run ui/streamlit_app.py`. `HYBLINK_API_URL` names the service."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Streamlit puts ui/ first on the path; our packages are one folder up.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

import streamlit as st  # noqa: E402

from ui.client import Client  # noqa: E402
from ui.views import entity, jobs, linking, search  # noqa: E402


@st.cache_resource  # type: ignore[untyped-decorator]
def _client(url: str, key: str | None) -> Client:
    return Client(url, key)


def _service() -> Client:
    found: Client = _client(
        os.environ.get("HYBLINK_API_URL", "http://127.0.0.1:8080"), os.environ.get("HYBLINK_API_KEY")
    )
    return found


def _search() -> None:
    search.show(_service(), os.environ.get("HYBLINK_UI_COLLECTION", "default"))


def _linking() -> None:
    linking.show(_service(), os.environ.get("HYBLINK_UI_KB", "entities"))


def _entity() -> None:
    entity.show(_service(), os.environ.get("HYBLINK_UI_KB", "entities"))


def _jobs() -> None:
    jobs.show(_service())


st.set_page_config(page_title="hyblink", page_icon="🔎", layout="wide")
st.navigation(
    [
        st.Page(_search, title="Search", url_path="search", default=True),
        st.Page(_linking, title="Linking", url_path="linking"),
        st.Page(_entity, title="Entities", url_path="entity"),
        st.Page(_jobs, title="Ingestion", url_path="ingestion"),
    ]
).run()
