"""Clients that send slowly, or too much, against a real server: they cost nothing and nobody waits for them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from support.brokers import free_port

from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.api.protocol import timed_protocol
from hyblink.app.application import App
from hyblink.app.core.settings import ApiSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection


@pytest.fixture
def server(make_app: Callable[..., App]) -> Iterator[tuple[int, str]]:
    """The port of a server with short time limits, and an ingest key."""
    app = make_app(api=ApiSettings(header_timeout_s=0.5, body_timeout_s=0.5))
    ensure_collection(app, CollectionSpec("default"))
    key = KeyStore(app.catalog.records()).create("ingest", "2026-01-01")
    port = free_port()
    config = uvicorn.Config(
        create_api(app),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_keep_alive=5,
        http=timed_protocol(0.5),
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    yield port, key
    running.should_exit = True
    thread.join()


def opened(port: int, sent: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.sendall(sent)
    return made


def answer_of(connection: socket.socket) -> bytes:
    """All that is sent until the other side closes. Then this side is closed too."""
    found = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            found += part
    return found


def answers_healthy(connection: socket.socket) -> bool:
    """Whether the next answer on a connection that stays open is the one of /healthz."""
    found = b""
    while not found.endswith(b"}") and (part := connection.recv(65536)):
        found += part
    return found.endswith(b'{"status":"ok"}')


def health(port: int) -> float:
    """Seconds until /healthz has answered."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
        assert json.load(answer) == {"status": "ok"}
    return time.perf_counter() - began


def test_half_sent_headers_are_closed(server: tuple[int, str]) -> None:
    port, _ = server
    began = time.perf_counter()
    waiting = [opened(port, sent) for sent in (b"", b"GET", b"GET /healthz HTTP/1.1\r\nHost: x") for _ in range(100)]
    assert health(port) < 5
    for connection in waiting:
        answer = answer_of(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert time.perf_counter() - began < 10, "not minutes"


def test_a_second_half_request_on_a_kept_connection_is_closed(server: tuple[int, str]) -> None:
    port, _ = server
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    connection = opened(port, whole)
    assert answers_healthy(connection)
    time.sleep(0.8)  # longer than the limit of headers: an idle connection may stay
    connection.sendall(whole)
    assert answers_healthy(connection)
    connection.sendall(whole[:20])
    assert answer_of(connection).startswith(b"HTTP/1.1 408")


def test_half_sent_bodies_are_answered_408(server: tuple[int, str]) -> None:
    port, key = server
    head = (
        f"POST /v1/documents:bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    ).encode()
    for start in (b"", b'{"documents": ['):
        answer = answer_of(opened(port, head + start))
        assert answer.startswith(b"HTTP/1.1 408"), answer
        assert b"the body did not arrive in time" in answer
    upload = head.replace(b"/v1/documents:bulk", b"/v1/uploads?name=a.txt")
    assert answer_of(opened(port, upload + b"begun")).startswith(b"HTTP/1.1 408")
    assert health(port) < 5


def test_a_body_that_arrives_steadily_is_read_however_long_it_takes(server: tuple[int, str]) -> None:
    port, key = server
    body = json.dumps({"documents": [{"id": "1", "text": "x" * 150_000}]}).encode()
    connection = opened(
        port,
        f"POST /v1/documents:bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode(),
    )
    part = len(body) // 10 + 1
    for at in range(0, len(body), part):  # 75 kB a second
        connection.sendall(body[at : at + part])
        time.sleep(0.2)
    assert answer_of(connection).startswith(b"HTTP/1.1 200")


def test_a_large_body_without_a_key_is_refused_unread_and_health_never_waits(server: tuple[int, str]) -> None:
    port, key = server
    documents = [{"id": str(n), "text": "x", "metadata": {str(m): m for m in range(90)}} for n in range(20_000)]
    body = json.dumps({"documents": documents}).encode()
    assert 15_000_000 < len(body) < 32_000_000

    def post(headers: str) -> bytes:
        head = (
            f"POST /v1/documents:bulk HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was answered before all was sent
            connection.sendall(head.encode() + body)
        return answer_of(connection)

    assert post("")[:12] in {b"HTTP/1.1 401", b""}
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(post(f"Authorization: Bearer {key}\r\n")))
    thread.start()
    answered = 0
    while thread.is_alive():
        health(port)
        answered += 1
    assert answers[0].startswith(b"HTTP/1.1 413"), answers[0][:300]
    assert b"at most 5000" in answers[0]
    assert answered > 5, "it is answered while the body is read and parsed"
