"""The page answers to its own names only."""

from __future__ import annotations

import pytest

from hyblink.ui.hosts import refusal


@pytest.mark.parametrize(
    ("headers", "listed", "allowed"),
    [
        ({}, "", True),
        ({"Host": "localhost:8501", "Origin": "http://localhost:8501"}, "", True),
        ({"Host": "127.0.0.1:8501"}, "", True),
        ({"Host": "[::1]:8501", "Origin": "http://[::1]:8501"}, "", True),
        ({"Host": "10.1.2.3:8501", "Origin": "http://10.1.2.3:8501"}, "", True),
        ({"Host": "evil.example:8501", "Origin": "http://evil.example:8501"}, "", False),
        ({"Host": "localhost.evil.example:8501"}, "", False),
        ({"Host": "localhost:8501", "Origin": "http://localhost:3000"}, "", False),
        ({"Host": "localhost:8501", "Origin": "http://evil.example"}, "", False),
        ({"Host": "localhost:8501", "Origin": "null"}, "", False),
        ({"Host": "", "Origin": "http://localhost:8501"}, "", False),
        ({"Origin": "http://localhost:8501"}, "", False),
        ({"Host": "localhost:8501, evil.example"}, "", False),
        ({"Host": "localhost@evil.example"}, "", False),
        ({"Host": "localhost:x"}, "", False),
        ({"Host": "search.example", "Origin": "https://search.example"}, "search.example, other", True),
        ({"Host": "localhost:8501", "Origin": "https://search.example"}, "search.example", True),
        ({"Host": "other.example", "Origin": "https://other.example"}, "search.example", False),
    ],
)
def test_names_of_the_page(headers: dict[str, str], listed: str, allowed: bool) -> None:
    said = refusal(headers, listed)
    assert (said == "") is allowed
    if said:
        assert "HYBLINK_UI_HOSTS" in said
