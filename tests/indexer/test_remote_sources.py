"""Web pages, buckets and databases as sources, each from a real local server."""

from __future__ import annotations

import gzip
import http.server
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.brokers import Postgres

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError, NotFoundError, SourceUnavailableError, UnavailableError
from hyblink.app.core.settings import SourceSettings
from hyblink.app.core.types.documents import Document
from hyblink.app.operations.sources import described, opened_source
from hyblink.app.operations.sync import Synced, sync


def run(
    app: App, wanted: str, *, query: str = "", force: bool = False, dry_run: bool = False, **reading: Any
) -> Synced:
    name, told = described(wanted, app.settings, query)
    return sync(app, "c", opened_source(app, "c", name, told, **reading), wait=False, force=force, dry_run=dry_run)


def stored(app: App) -> dict[str, Document]:
    return {one.document.id: one.document for one in app.catalog.engine("c").store.reader().export()}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """(a folder, the address at which it is served)."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            if self.path.startswith("/busy"):
                self.send_error(503)
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def sitemap(*places: str, kind: str = "urlset") -> bytes:
    entries = "".join(f"<x><loc> {place} </loc></x>" for place in places)
    return (
        f'<?xml version="1.0"?><{kind} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</{kind}>'.encode()
    )


def test_pages_of_a_sitemap(make_app: Callable[..., App], site: tuple[Path, str]) -> None:
    app, (folder, url) = make_app(), site
    for name in "abc":
        (folder / f"{name}.html").write_text(f"<title>Page {name}</title><h1>Page {name}</h1><p>text of {name}")
    (folder / "note").write_text("A note without a suffix.")
    pages = [f"{url}/a.html", f"{url}/b.html", f"{url}/note", "https://other.example/x", f"{url}/busy", "/c.html"]
    (folder / "inner.xml.gz").write_bytes(gzip.compress(sitemap(*pages)))
    (folder / "sitemap.xml").write_bytes(sitemap(f"{url}/inner.xml.gz", kind="sitemapindex"))
    done = run(app, f"{url}/sitemap.xml")
    assert done.ingested is not None
    report = done.ingested.report
    assert (report.files_read, report.files_skipped, report.files_rejected) == (4, 1, 1)
    assert "of another host" in report.skipped[0]
    assert "does not answer" in report.rejects[0]
    found = stored(app)
    assert set(found) == {f"{url}/{name}" for name in ("a.html", "b.html", "c.html", "note")}
    assert found[f"{url}/a.html"].title == "Page a"
    assert found[f"{url}/a.html"].metadata["source"] == "127.0.0.1"
    # One page is gone for the sitemap, one for the server, one changed, one cannot be had now.
    (folder / "a.html").unlink()
    (folder / "c.html").write_text("<title>Page c</title><p>new text")
    (folder / "busy").write_text("")
    (folder / "inner.xml.gz").write_bytes(gzip.compress(sitemap(*pages[:2], *pages[3:])))
    again = run(app, f"{url}/sitemap.xml")
    assert again.removed == [f"{url}/a.html", f"{url}/note"]
    assert stored(app)[f"{url}/c.html"].text == "new text"
    with pytest.raises(NotFoundError):
        run(app, f"{url}/nothing.xml")
    assert len(stored(app)) == 2


def test_a_page_that_cannot_be_had_now_stays(make_app: Callable[..., App], site: tuple[Path, str]) -> None:
    app, (folder, url) = make_app(), site
    (folder / "busy.html").write_text("x")
    (folder / "a.html").write_text("<p>text")
    (folder / "list.txt").write_text(f"# pages\n{url}/a.html\n")
    run(app, f"{url}/list.txt")
    app.documents.bulk(
        "c", [{"id": f"{url}/busy", "text": "old", "metadata": {"source": "127.0.0.1", "file": f"{url}/busy"}}]
    )
    (folder / "list.txt").write_text(f"{url}/busy\n{url}/a.html\n")
    done = run(app, f"{url}/list.txt")
    assert done.kept == [f"{url}/busy"]
    assert set(stored(app)) == {f"{url}/a.html", f"{url}/busy"}


def test_one_page_alone(make_app: Callable[..., App], site: tuple[Path, str]) -> None:
    app, (folder, url) = make_app(), site
    (folder / "a.html").write_text("<h1>Only</h1><p>text")
    run(app, f"{url}/a.html")
    assert stored(app)[f"{url}/a.html"].title == "Only"
    with pytest.raises(InvalidInputError, match="bad url"):
        run(app, "https://user:secret@host/x")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a local S3."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="papers")
    yield client
    server.stop()


def test_objects_of_a_bucket(make_app: Callable[..., App], s3: Any) -> None:
    app = make_app()

    def put(key: str, body: bytes) -> None:
        s3.put_object(Bucket="papers", Key=key, Body=body)

    put("2024/readme.md", b"# Read me\n\nfirst words")
    put("2024/deep/er/page.html", b"<h1>Deep</h1><p>words")
    put("2024/rows.csv.gz", gzip.compress(b"id,text\nr1,one\nr2,two\n"))
    put("2024/.hidden.md", b"no")
    put("2024/picture.png", b"\x89PNG\r\n\x1a\n\x00\x00")
    put("2024/", b"")
    put("other.md", b"not below")
    done = run(app, "s3://papers/2024")
    assert done.ingested is not None
    report = done.ingested.report
    assert (report.files_read, report.files_skipped, report.files_rejected) == (3, 2, 0)
    found = stored(app)
    assert set(found) == {"readme.md", "deep/er/page.html", "r1", "r2"}
    assert (found["readme.md"].title, found["readme.md"].metadata["source"]) == ("Read me", "2024")
    s3.delete_object(Bucket="papers", Key="2024/rows.csv.gz")
    put("2024/readme.md", b"# Read me\n\nother words")
    again = run(app, "s3://papers/2024")
    assert again.removed == ["r1", "r2"]
    assert stored(app)["readme.md"].text.endswith("other words")
    for wanted in ("s3://papers/nothing", "s3://nowhere/x"):
        with pytest.raises((NotFoundError, UnavailableError)):
            run(app, wanted)
    with pytest.raises(InvalidInputError, match="no such kind of bucket"):
        run(app, "nonsense://x/y")
    assert set(stored(app)) == {"readme.md", "deep/er/page.html"}


def test_a_bucket_that_does_not_answer_removes_nothing(
    make_app: Callable[..., App], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    app = make_app()
    s3.put_object(Bucket="papers", Key="a.md", Body=b"text")
    run(app, "s3://papers")
    before = stored(app)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UnavailableError, match="does not answer"):
        run(app, "s3://papers")
    assert "a.md" in before
    assert stored(app) == before


def shop(path: Path) -> str:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE products (sku TEXT PRIMARY KEY, name TEXT, body TEXT, price NUMERIC, day DATE)")
        database.executemany(
            "INSERT INTO products VALUES (?, ?, ?, ?, ?)",
            [(f"p{n}", f"Product {n}", f"It is number {n}.", n + 0.5, f"2024-05-{n:02}") for n in range(1, 8)],
        )
    return f"sqlite:///{path}"


QUERY = "SELECT sku AS id, name AS title, body, price, day FROM products"


def check_rows(app: App, url: str, change: Callable[[str], None]) -> None:
    """Read a database of products, change it, and read it again."""
    done = run(app, url, query=QUERY)
    assert done.ingested is not None
    assert done.ingested.report.created == 7
    one = stored(app)["p3"]
    assert (one.title, one.text) == ("Product 3", "It is number 3.")
    assert (one.metadata["price"], one.metadata["day"]) == (3.5, "2024-05-03")
    change("DELETE FROM products WHERE sku = 'p1'")
    change("UPDATE products SET body = 'New.' WHERE sku = 'p2'")
    told = run(app, url, query=QUERY, dry_run=True)
    assert (told.added, told.changed, told.removed) == ([], ["p2"], ["p1"])
    again = run(app, url, query=QUERY)
    assert again.removed == ["p1"]
    assert stored(app)["p2"].text == "New."


def test_rows_of_sqlite(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    url = shop(tmp_path / "shop.db")

    def change(statement: str) -> None:
        with sqlite3.connect(tmp_path / "shop.db") as database:
            database.execute(statement)

    check_rows(app, url, change)
    with pytest.raises(UnavailableError, match="no such table: missing"):
        run(app, url, query="SELECT id FROM missing")
    with pytest.raises(InvalidInputError, match="no column with an id"):
        run(app, url, query="SELECT name, body FROM products")
    with pytest.raises(InvalidInputError, match="no database address"):
        run(app, "what is this", query=QUERY)
    with pytest.raises(InvalidInputError, match="driver is not installed"):
        run(app, "mysql+pymysql://u:secret@h/d", query=QUERY)
    assert len(stored(app)) == 6


@pytest.mark.services
def test_rows_of_postgresql(make_app: Callable[..., App], tmp_path: Path) -> None:
    import psycopg

    app = make_app()
    server = Postgres(tmp_path / "postgres")
    server.start()
    try:
        with psycopg.connect(server.plain_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE products (sku TEXT, name TEXT, body TEXT, price NUMERIC, day DATE)")
            for n in range(1, 8):
                row = (f"p{n}", f"Product {n}", f"It is number {n}.", n + 0.5, f"2024-05-{n:02}")
                connection.execute("INSERT INTO products VALUES (%s, %s, %s, %s, %s)", row)
            check_rows(app, server.url, lambda statement: connection.execute(statement))
            gone = "WITH gone AS (DELETE FROM products RETURNING sku) SELECT sku AS id FROM gone"
            with pytest.raises(SourceUnavailableError, match="the query fails"):
                run(app, server.url, query=gone)
    finally:
        server.kill()
    with pytest.raises(SourceUnavailableError, match="the query fails"):
        run(app, server.url, query=QUERY)
    assert len(stored(app)) == 6


def test_a_query_changes_nothing(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    url = shop(tmp_path / "shop.db")
    with pytest.raises((UnavailableError, InvalidInputError)):
        run(app, url, query="DELETE FROM products")
    with sqlite3.connect(tmp_path / "shop.db") as database:
        assert database.execute("SELECT count(*) FROM products").fetchone() == (7,)


def test_sources_of_the_settings(make_app: Callable[..., App], tmp_path: Path) -> None:
    url = shop(tmp_path / "shop.db")
    folder = tmp_path / "a" / "notes"
    folder.mkdir(parents=True)
    (folder / "x.md").write_text("words")
    app = make_app(
        sources={
            "products": SourceSettings(
                database=url, query="SELECT * FROM products", id_column="sku", text_column="body"
            ),
            "mine": SourceSettings(folder=folder),
            "empty": SourceSettings(),
        }
    )
    run(app, "products")
    run(app, "mine")
    found = stored(app)
    assert found["p1"].metadata["source"] == "products"
    assert found["mine/x.md"].metadata["source"] == "mine"
    with pytest.raises(InvalidInputError, match="without an address"):
        run(app, "empty")
    (folder / "x.md").unlink()
    assert run(app, "mine").removed == ["mine/x.md"]
    assert len(stored(app)) == 7


def test_sources_of_one_name_do_not_remove_each_others_documents(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    for parent in ("one", "two"):
        folder = tmp_path / parent / "notes"
        folder.mkdir(parents=True)
        (folder / "readme.md").write_text(f"text of {parent}")
        run(app, str(folder))
    found = stored(app)
    assert {one.metadata["source"] for one in found.values()} == {"notes", "notes-2"}
    assert set(found) == {"readme.md", "notes/readme.md"}
    (tmp_path / "two" / "notes" / "readme.md").unlink()
    assert run(app, str(tmp_path / "two" / "notes")).removed == ["notes/readme.md"]
    assert set(stored(app)) == {"readme.md"}
