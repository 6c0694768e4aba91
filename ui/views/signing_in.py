"""Sign-in with an API key, if the service requires one.

The key is kept only in the session state on the server, not in a cookie or URL.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from hyblink.ui import rendering
from hyblink.ui.client import ApiError, Client

_ASKED = 401


def who(url: str, service_key: str | None) -> dict[str, Any] | None:
    """The identity of this session (role and note of its key).

    Returns None if the user is not signed in yet or the call fails; the page then shows the sign-in form or the error.
    `service_key` None means that the UI has no key of its own.
    """
    state = st.session_state
    if "client" not in state:
        state["client"] = Client(url, service_key)
    if "who" not in state:
        try:
            state["who"] = state["client"].whoami()
        except ApiError as error:
            if error.status != _ASKED:
                st.error(rendering.plain(error))
                return None
            _form(url)
            return None
    found: dict[str, Any] = state["who"]
    if state.get("signed-in"):
        with st.sidebar:
            st.caption(f"Signed in: {found['role']} {rendering.plain(found['note'])}")
            st.button("Sign out", on_click=state.clear)
    return found


def _form(url: str) -> None:
    st.title("hyblink", anchor=False)
    with st.form("sign-in", clear_on_submit=True):
        key = st.text_input("API key or token", type="password", autocomplete="off")
        asked = st.form_submit_button("Sign in")
    if not asked:
        return
    client = Client(url, key.strip())
    try:
        found = client.whoami()
    except ApiError as error:
        st.error(rendering.plain(error))
        return
    st.session_state.update({"client": client, "who": found, "signed-in": True})
    st.rerun()
