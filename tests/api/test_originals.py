"""The files that documents were read from, as the API serves them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.api import LOOPBACK, client

from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.settings import ApiSettings
from hyblink.app.operations.ingestion import ingest_source
from hyblink.app.operations.sources import named
from hyblink.indexer.readers.files import FileSource

__all__ = ["client"]
CASES = Path(__file__).parents[1] / "data" / "cases"


def read(app: App, folder: Path) -> None:
    prefix = named(app, "notes", folder).prefix
    source = FileSource(folder, prefix=prefix, name=named(app, "notes", folder).name)
    ingest_source(app, source, "notes", wait=False)


@pytest.fixture
def notes(app: App, tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "notes"
    folder.mkdir(parents=True)
    shutil.copy(CASES / "pdf" / "hyphen.pdf", folder / "hyphen.pdf")
    shutil.copy(next((CASES / "office-folder").rglob("*.docx")), folder / "office.docx")
    (folder / "page.html").write_text("<h1>Hello</h1><script>alert(1)</script><p>World")
    (folder / "läsion.txt").write_bytes("Käse und Brot, größer als gedacht, überall für Möwen.".encode("cp1252"))
    (folder / ".secret.txt").write_text("hidden")
    (tmp_path / "a" / "outside.txt").write_text("not of the folder")
    (folder / "out.txt").symlink_to(tmp_path / "a" / "outside.txt")
    read(app, folder)
    return folder


@pytest.mark.parametrize(
    ("file", "content_type", "shown"),
    [
        ("hyphen.pdf", "application/pdf", "inline"),
        ("page.html", "text/plain; charset=utf-8", "inline"),
        ("läsion.txt", "text/plain; charset=cp1252", "inline"),
        ("office.docx", "application/octet-stream", "attachment"),
    ],
)
def test_originals_are_served_inert(client: TestClient, notes: Path, file: str, content_type: str, shown: str) -> None:
    answer = client.get(f"/v1/documents/{file}/source", params={"collection": "notes"})
    assert answer.status_code == 200
    assert answer.content == (notes / file).read_bytes()
    assert answer.headers["hyblink-source"] == "file"
    assert answer.headers["content-type"] == content_type
    assert answer.headers["content-disposition"].startswith(f"{shown};")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_stored_text_stands_for_a_file_that_is_gone(client: TestClient, notes: Path) -> None:
    (notes / "page.html").unlink()
    answer = client.get("/v1/documents/page.html/source", params={"collection": "notes"})
    assert (answer.status_code, answer.text) == (200, "Hello\nWorld")
    assert answer.headers["hyblink-source"] == "text; the file is gone, on another machine or in an archive"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    missing = client.get("/v1/documents/nothing.html/source", params={"collection": "notes"})
    assert missing.status_code == 404


@pytest.mark.parametrize(
    "file", ["../outside.txt", "/etc/passwd", ".secret.txt", "x/../../outside.txt", "a\u0000b", "", ".", "out.txt"]
)
def test_a_document_cannot_name_another_file(client: TestClient, app: App, notes: Path, file: str) -> None:
    row = {"id": "mine", "text": "my text", "metadata": {"file": file, "source": "notes"}}
    answer = client.post("/v1/documents:bulk", params={"collection": "notes"}, json={"documents": [row]})
    if answer.json()["errors"]:
        return  # no such metadata
    served = client.get("/v1/documents/mine/source", params={"collection": "notes"})
    assert served.text == "my text"
    assert served.headers["hyblink-source"].startswith("text; ")


def test_another_collection_has_other_folders(client: TestClient, notes: Path) -> None:
    row = {"id": "mine", "text": "my text", "metadata": {"file": "page.html", "source": "notes"}}
    client.post("/v1/documents:bulk", json={"documents": [row]})
    assert client.get("/v1/documents/mine/source").text == "my text"


def test_an_id_that_ends_like_the_route_is_a_document(client: TestClient) -> None:
    client.post("/v1/documents:bulk", json={"documents": [{"id": "open/source", "text": "itself"}]})
    assert client.get("/v1/documents/open/source").json()["text"] == "itself"
    assert client.get("/v1/documents/open/source/source").text == "itself"


def test_serving_files_can_be_turned_off(make_app, notes: Path) -> None:  # type: ignore[no-untyped-def]
    app = make_app(api=ApiSettings(serve_originals=False))
    read(app, notes)
    with TestClient(create_api(app), base_url=LOOPBACK) as client:
        answer = client.get("/v1/documents/page.html/source", params={"collection": "notes"})
    assert (answer.text, answer.headers["hyblink-source"]) == ("Hello\nWorld", "text; api.serve_originals is off")
