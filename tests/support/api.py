"""A client of the API over an application with documents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from support.documents import random_documents

from hyblink.app.api.application import create_api
from hyblink.app.application import App

LOOPBACK = "http://127.0.0.1"


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(create_api(app), base_url=LOOPBACK, raise_server_exceptions=False) as client:
        answer = client.post("/v1/documents:bulk", json={"documents": random_documents(150, seed=2)})
        assert answer.status_code == 200
        assert not answer.json()["errors"]
        assert app.jobs.wait(60)
        yield client


def error(answer) -> dict:  # type: ignore[no-untyped-def]
    body = answer.json()["error"]
    assert set(body) == {"code", "message", "received", "expected"}
    return body
