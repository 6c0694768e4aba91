"""`/docs` works without the internet."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient
from support.api import LOOPBACK

from hyblink.app.api.application import create_api
from hyblink.app.application import App


def test_the_page_and_all_its_files_are_served_from_here(app: App) -> None:
    with TestClient(create_api(app), base_url=LOOPBACK) as client:
        page = client.get("/docs")
        assert page.status_code == 200
        asked = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
        assert len(asked) >= 3
        assert not re.search(r"https?://", page.text)
        for path in [*asked, "/openapi.json"]:
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert len(answer.content) > 500
