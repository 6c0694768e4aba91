"""Ingestion from other servers: what may be read, what a redirect or a name server must not lead to."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.errors import ForbiddenError, HyblinkError, InvalidInputError, NotFoundError, UnavailableError
from hyblink.app.core.settings import JobsSettings
from hyblink.app.operations.jobs import start_ingestion
from hyblink.indexer.ingest.fetch import Allowed, fetched, file_name

ROWS = b"".join(json.dumps({"id": f"u{n}", "text": f"heron number {n} fishes"}).encode() + b"\n" for n in range(30))


class Server:
    """Answers by path; counts what was asked, and with which headers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {"/rows.jsonl": (200, {}, ROWS)}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.path, dict(self.headers)))
                status, headers, body = server.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def inner() -> Iterator[Server]:
    """What only this machine can reach, and nobody listed."""
    made = Server()
    made.answers["/secret.jsonl"] = (200, {}, ROWS)
    yield made
    made.close()


def allowed(*hosts: str, networks: tuple[str, ...] = ("127.0.0.0/8",)) -> Allowed:
    return Allowed.of(hosts, networks)


def content(url: str, who: Allowed) -> bytes:
    with fetched(url, who) as parts:
        return b"".join(parts)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/x.txt", "file:///etc/passwd", "gopher://h/x", "//h/x", "h/x", "", "http://", "http:///x.txt",
        "http://user@h/x.txt", "http://h:secret@h/x.txt", "http://h/\r\nX: y", "http://h /x", "http://h:99999/x",
        "http://[::1/x", "http://h/" + "x" * 3000, "http://h\\@evil/x", "http://0x7f.1%2f/x", "javascript:alert(1)",
        "http://h/ü.txt", "http://hé/x.txt",
    ],
)  # fmt: skip
def test_bad_addresses(url: str) -> None:
    with pytest.raises((InvalidInputError, ForbiddenError)):
        Allowed.of(("h",), ()).check(url)


@pytest.mark.parametrize(
    ("entry", "url", "good"),
    [
        ("example.org", "https://example.org/a.txt", True),
        ("example.org", "https://EXAMPLE.org/a.txt", True),
        ("example.org", "https://example.org:8443/a.txt", False),
        ("example.org:8443", "https://example.org:8443/a.txt", True),
        ("example.org:8443", "https://example.org/a.txt", False),
        ("example.org", "https://www.example.org/a.txt", False),
        ("*.example.org", "https://www.example.org/a.txt", True),
        ("*.example.org", "https://example.org/a.txt", False),
        ("*.example.org", "https://evilexample.org/a.txt", False),
        ("example.org", "https://example.org.evil.com/a.txt", False),
        ("[2001:db8::1]:80", "http://[2001:db8::1]/a.txt", True),
        ("2001:db8::1", "http://[2001:db8::1]/a.txt", True),
        ("127.0.0.1", "http://2130706433/a.txt", False),
        ("127.0.0.1", "http://127.1/a.txt", False),
    ],
)
def test_hosts_are_compared_whole(entry: str, url: str, good: bool) -> None:
    who = Allowed.of((entry,), ())
    if good:
        assert who.check(url)[3] == "/a.txt"
    else:
        with pytest.raises(ForbiddenError, match=r"jobs\.url_hosts"):
            who.check(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b:1::1", "64:ff9b::7f00:1", "fec0::1", "::127.0.0.1", "::ffff:0:7f00:1", "5f00::1", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
def test_no_name_leads_inside(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 80)), (family, 1, 6, "", (address, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers[1:])
    with pytest.raises(ForbiddenError, match="stands for an address"):
        content("http://docs.example.org/x.txt", Allowed.of(("docs.example.org",), ()))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(ForbiddenError, match="stands for an address"):
        Allowed.of(("docs.example.org",), ()).address("docs.example.org", 80)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers[:1])
    assert Allowed.of(("docs.example.org",), ()).address("docs.example.org", 80) == "93.184.215.14"


def test_a_name_that_changes_its_answer_is_asked_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what was checked is what is connected to."""
    asked = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *rest: Any, **more: Any) -> Any:
        if host == "docs.test":
            asked.append(host)
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port))
            ]
        return real(host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = server.host.partition(":")[2]
    assert content(f"http://docs.test:{port}/rows.jsonl", allowed(f"docs.test:{port}")) == ROWS
    assert asked == ["docs.test"]
    path, headers = server.asked[0]
    assert (path, headers["Host"]) == ("/rows.jsonl", f"docs.test:{port}")
    assert set(headers) == {"Host", "Accept-Encoding", "User-Agent"}, "nothing of ours goes along"


def test_redirects_are_followed_only_to_where_one_may_go(server: Server, inner: Server) -> None:
    who = allowed(server.host)
    server.answers |= {
        "/moved.jsonl": (302, {"Location": "/rows.jsonl"}, b""),
        "/inside.jsonl": (302, {"Location": f"{inner.url}/secret.jsonl"}, b""),
        "/file.jsonl": (302, {"Location": "file:///etc/passwd"}, b""),
        "/meta.jsonl": (307, {"Location": "http://169.254.169.254/latest/meta-data/"}, b""),
        "/user.jsonl": (302, {"Location": f"http://a:b@{server.host}/rows.jsonl"}, b""),
        "/nowhere.jsonl": (302, {}, b""),
        "/round.jsonl": (301, {"Location": "/round.jsonl"}, b""),
    }
    assert content(f"{server.url}/moved.jsonl", who) == ROWS
    for name, error in {
        "inside": ForbiddenError, "file": InvalidInputError, "meta": ForbiddenError, "user": InvalidInputError,
        "nowhere": UnavailableError, "round": UnavailableError,
    }.items():  # fmt: skip
        with pytest.raises(error):
            content(f"{server.url}/{name}.jsonl", who)
    assert inner.asked == []
    assert len([path for path, _ in server.asked if path == "/round.jsonl"]) == 6


def test_answers_that_are_no_file(server: Server) -> None:
    server.answers |= {
        "/busy.txt": (503, {}, b""),
        "/no.txt": (403, {}, b""),
        "/packed.txt": (200, {"Content-Encoding": "gzip"}, gzip.compress(b"x")),
    }
    errors: dict[str, type[HyblinkError]] = {
        "busy": UnavailableError, "no": InvalidInputError, "packed": InvalidInputError, "gone": NotFoundError,
    }  # fmt: skip
    for name, error in errors.items():
        with pytest.raises(error):
            content(f"{server.url}/{name}.txt", allowed(server.host))
    server.close()
    with pytest.raises(UnavailableError, match="does not answer"):
        content(f"{server.url}/rows.jsonl", allowed(server.host))


def test_names_of_files() -> None:
    assert file_name("https://h/a/b%20c.jsonl?x=1") == "b c.jsonl"
    assert file_name("https://h/") == ""


@pytest.fixture
def served(make_app: Callable[..., App], server: Server) -> App:
    jobs = JobsSettings(
        broker="none", url_hosts=(server.host,), url_networks=("127.0.0.0/8",), retry_s=0.01, max_upload_bytes=100_000
    )  # type: ignore[arg-type]
    return make_app(jobs=jobs)


def begun(app: App, url: str, **more: Any) -> Any:
    with TestClient(create_api(app), base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/jobs", json={"collection": "birds", "url": url, **more})
        if answer.status_code != 202:
            return answer
        assert app.jobs.wait(60)  # type: ignore[union-attr]
        return client.get(f"/v1/jobs/{answer.json()['id']}").json()


def test_a_job_reads_from_another_server_once(served: App, server: Server) -> None:
    server.answers["/rows.jsonl.gz"] = (200, {}, gzip.compress(ROWS))
    job = begun(served, f"{server.url}/rows.jsonl.gz")
    assert job["state"] == "done", job
    assert (job["progress"]["created"], job["progress"]["rejected"]) == (30, 0)
    assert len(server.asked) == 1
    assert served.uploads.path(job["progress"]["upload"]).name == "rows.jsonl.gz"
    assert served.documents.get("birds", "u7").text == "heron number 7 fishes"
    again = begun(served, f"{server.url}/rows.jsonl")
    assert again["progress"]["unchanged"] == 30


@pytest.mark.parametrize(
    ("path", "status"), [("/../etc/passwd.exe", 400), ("/x.exe", 400), ("/%2e%2e%2fx.jsonl", 400), ("/", 400)]
)
def test_what_is_refused_at_once(served: App, server: Server, path: str, status: int) -> None:
    assert begun(served, f"{server.url}{path}").status_code == status
    assert begun(served, "http://127.0.0.1:1/x.jsonl").status_code == 403
    assert begun(served, f"{server.url}/rows.jsonl", upload="u").status_code == 400
    assert server.asked == []
    assert served.job_records.list() == []


def test_what_goes_wrong_while_reading_is_in_the_job(served: App, server: Server) -> None:
    job = begun(served, f"{server.url}/gone.jsonl")
    assert (job["state"], "404" in job["error"]) == ("failed", True)
    server.answers["/big.jsonl"] = (200, {}, ROWS * 100)
    job = begun(served, f"{server.url}/big.jsonl")
    assert (job["state"], "at most 100000 bytes" in job["error"]) == ("failed", True)
    left = served.settings.data_dir / "uploads"
    assert list(left.iterdir()) == [], "nothing half-written stays"
    server.answers["/busy.jsonl"] = (503, {}, b"")
    job = start_ingestion(served, "birds", {"url": f"{server.url}/busy.jsonl"})
    deadline = time.monotonic() + 60
    while (seen := served.job_records.get(job.id)).state != "failed":
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    assert (seen.attempts, "503" in seen.error) == (5, True)
    server.answers["/busy.jsonl"] = (200, {}, ROWS)
    served.job_records.resume(job.id)
    assert served.jobs.wait(60)  # type: ignore[union-attr]
    assert served.job_records.get(job.id).state == "done"


def test_a_server_that_takes_for_ever_is_given_up(served: App, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/slow.jsonl"] = (200, {}, ROWS * 1000)
    settings = served.settings.model_copy(
        update={"jobs": served.settings.jobs.model_copy(update={"url_timeout_s": 0.0, "max_attempts": 1})}
    )
    monkeypatch.setattr(served, "settings", settings)
    monkeypatch.setattr(served.job_records, "_max_attempts", 1)
    job = begun(served, f"{server.url}/slow.jsonl")
    assert (job["state"], "takes too long" in job["error"]) == ("failed", True)


def test_bad_networks(make_app: Callable[..., App]) -> None:
    app = make_app(jobs=JobsSettings(broker="none", url_hosts=("h",), url_networks=("everything",)))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="url_networks"):
        start_ingestion(app, "c", {"url": "http://h/x.txt"})
