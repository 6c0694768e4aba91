"""Records what an installation answers, so that two versions can be compared answer by answer.

    python -m tests.support.recorder record OUT.jsonl [--engine opensearch] [--python PATH] [--path CHECKOUT]
    python -m tests.support.recorder compare BEFORE.jsonl AFTER.jsonl

It goes through the doors alone (the `hyblink` command and HTTP), so that any version can be recorded. The corpus is the
documentation of installed packages; the models are those that are shipped. Times, request ids and dates are left out;
everything else is kept to the last digit. What models compute differs by rounding between two runs of one version, so
that numbers are compared with a tolerance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("json", "http", "email")
KB_PACKAGES = ("json", "http")
VOLATILE = frozenset(
    {"took_ms", "timings_ms", "created", "search_id", "request_id", "created_at", "finished_at", "at", "started"}
)
"""Response keys that are left out: times and random ids."""
QUERIES = (
    "how do I parse a message", "decode base64 text", "header of a response", "cookie that expires", "cookies",
    "write an object as text", "close the connection", "json body", "redirects are followed", "content type",
    "attach a file to a mail", "character set of a part", "chunked transfer", "status code names", "server on a port",
    "serve files of a folder", "address of the sender", "date in a header", "line longer than allowed", "timeout",
    "default function of the encoder", "keys sorted", "not a number", "indentation of the output", "invalid literal",
    "policy of a message", "walk over all parts", "proxy tunnel", "HTTPResponse.read", "--help text", "naïve café", "a",
)  # fmt: skip
TEXTS = (
    "Write it with dump and read it back with json.load.",
    "A JSONDecodeError is raised by json.loads; catch it around the decoder.",
    "An HTTPConnection sends a request; HTTPResponse.read gives the body.",
    "SimpleCookie and Morsel hold cookies. The HTTPStatus is an enum.",
    "JSONEncoder or JSONDecoder? Either way default is called for the object.",
)


def requests() -> list[tuple[str, str, Any]]:
    """The 300 requests to record as (method, path, body). They are the same in every run."""
    rng = random.Random(23)
    made: list[tuple[str, str, Any]] = []

    def post(path: str, **body: Any) -> None:
        made.append(("POST", path, body))

    for query in QUERIES:
        post("/v1/search", query=query, collection="docs", explain=True, rerank=False)
        post("/v1/search", query=query, collection="docs", k=5, rerank={"top": 8, "budget_ms": 60000}, explain=True)
    legs = [list(some) for n in (1, 2, 3) for some in itertools.combinations(("bm25", "vdr", "dense"), n)]
    fusions = ("weighted_sum", "rrf", "comb_sum", "comb_mnz", "isr")
    normalizations = ("min_max", "z_score", "l2", "theoretical", "none")
    modes = ("auto", "full", "alpha", "beta", "bag")
    filters = (
        None, {"term": {"kind": "function"}}, {"terms": {"kind": ["class", "method"]}},
        {"not": {"term": {"kind": "function"}}}, {"exists": "module"}, {"and": [{"term": {"kind": "class"}}]},
    )  # fmt: skip
    for at in range(100):
        signals = legs[at % len(legs)]
        post(
            "/v1/search", query=rng.choice(QUERIES), collection="docs", signals=signals, k=rng.randrange(1, 21),
            offset=rng.choice((0, 0, 3)), candidates=rng.choice((30, 100, 200)), fusion=fusions[at % 5],
            normalization=normalizations[at // 5 % 5], vdr=modes[at // 3 % 5], filter=filters[at % len(filters)],
            facets=["kind", "module"] if at % 4 == 0 else [], rerank=False, explain=at % 3 == 0,
            weights={"bm25": 0.4, "dense": 0.6, "vdr": 0.1} if at % 7 == 0 else None,
        )  # fmt: skip
    for at in range(30):
        post(
            "/v1/explain", query=QUERIES[at % len(QUERIES)], collection="docs", rerank=False, k=3, candidates=20,
            document_id=("http:http.client.HTTPResponse", "json:json.dumps", "email:email.message.Message", "nothing.here")[at % 4],
        )  # fmt: skip
    for at in range(16):
        post(
            "/v1/vocabulary", text=QUERIES[at], collection="docs", top=20,
            passage=TEXTS[at % len(TEXTS)] if at % 2 else None,
        )  # fmt: skip
    for at, text in enumerate(TEXTS * 8):
        body: dict[str, Any] = {"text": text, "collection": "api", "shown": 1 + at % 7}
        if at % 8 == 1:
            body |= {"rerank": True, "budget_ms": 120000}
        if at % 8 == 2:
            body["threshold"] = 0.0
        if at % 8 == 3:
            body["detectors"] = ["elq"]
        if at % 8 == 4:
            body["texts"] = [{"text": body.pop("text"), "mentions": [{"start": 0, "end": 3}]}]
        if at % 8 == 5:
            body["evidence"] = {"collection": "docs"}
        if at % 8 == 6:
            body |= {"joint": 0.1, "detectors": ["elq"]}
        post("/v1/link", **body)
    for name in ("http:http.client.HTTPResponse", "json:json.load", "no such document", "json:json"):
        made.append(("GET", f"/v1/documents/{urllib.parse.quote(name)}?collection=docs", None))
    for name in ("json:json.dump", "http:http.client.HTTPResponse", "no such entity"):
        made.append(("GET", f"/v1/entities/{urllib.parse.quote(name)}?collection=api", None))
        made.append(("GET", f"/v1/entities/{urllib.parse.quote(name)}/mentions?documents=docs", None))
    for path in (
        "/v1/collections",
        "/healthz",
        "/v1/admin/generations?collection=docs",
        "/v1/admin/keys",
        "/openapi.json",
    ):
        made.append(("GET", path, None))
    wrong: tuple[tuple[str, Any], ...] = (
        ("/v1/search", {}), ("/v1/search", {"query": ""}), ("/v1/search", {"query": "x", "collection": "nowhere"}),
        ("/v1/search", {"query": "x", "collection": "docs", "k": 0}), ("/v1/search", {"query": "x", "what": 1}),
        ("/v1/search", {"query": "x", "collection": "docs", "signals": ["smell"]}),
        ("/v1/search", {"query": "x", "collection": "docs", "signals": []}),
        ("/v1/search", {"query": "x", "collection": "docs", "filter": {"near": {}}}),
        ("/v1/search", {"query": "x", "collection": "docs", "offset": 500}),
        ("/v1/search", {"query": "x", "collection": "docs", "weights": {"bm25": 0}}),
        ("/v1/search", {"query": "x", "collection": "docs", "fusion": "blend"}),
        ("/v1/link", {"text": "x", "collection": "docs"}), ("/v1/link", {"text": "", "collection": "api"}),
        ("/v1/link", {"collection": "api"}), ("/v1/explain", {"query": "x"}), ("/v1/vocabulary", {"text": ""}),
        ("/v1/documents:bulk?collection=api", {"documents": [{"id": "a", "text": "b"}]}),
        ("/v1/entities:bulk?collection=docs", {"entities": [{"id": "a", "title": "b"}]}),
        ("/v1/documents:bulk?collection=new", {"documents": [{"id": "", "text": "b"}, {"id": "x", "text": 1}]}),
        ("/v1/documents:bulk?collection=new", {"documents": [{"id": "one", "title": "One", "text": "first text"}]}),
        ("/v1/documents:bulk?collection=new", {"documents": [{"id": "one", "title": "One", "text": "first text"}]}),
        ("/v1/nowhere", {}), ("/v1/judgements", {"judgements": []}),
    )  # fmt: skip
    made += [("POST", path, body) for path, body in wrong]
    for at in range(300 - len(made)):
        post("/v1/search", query=" ".join(rng.sample(QUERIES, 2)), collection="docs", k=7, rerank=False, offset=at % 3)
    assert len(made) == 300, len(made)
    return made


def canonical(value: Any) -> Any:
    """The response without the keys in `VOLATILE`, which differ between two runs of the same version."""
    if isinstance(value, dict):
        return {key: canonical(inner) for key, inner in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [canonical(inner) for inner in value]
    return value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Installation:
    """An installation of the program with its own data folder.

    `python` is its interpreter. `checkout` is a source tree to run instead of the installed package, or None.
    """

    def __init__(self, folder: Path, python: str, checkout: Path | None, engine: str, host: str) -> None:
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HYBLINK_")},
            "HYBLINK_DATA_DIR": str(folder / "data"),
            "HYBLINK_JOBS__BROKER": "none",
            "HYBLINK_ENGINE": engine,
            "HYBLINK_SEARCH__DEADLINE_MS": "60000",
            # One thread and fixed precision: sums of floats depend on the number of threads.
            "HYBLINK_ENCODE__PRECISION": "fp32",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "MKL_CBWR": "AVX2",
        }
        if engine == "opensearch":
            self._environment |= {
                "HYBLINK_OPENSEARCH__HOSTS": json.dumps([host]),
                "HYBLINK_OPENSEARCH__PREFIX": f"recorded-{os.getpid()}",
            }
        start = "from hyblink.app.cli.main import main; main()"
        if checkout is not None:
            self._environment["PYTHONPATH"] = str(checkout)
            if not (checkout / "hyblink").is_dir():
                start = "from app.cli.main import main; main()"  # a version without the package name hyblink
        self._command = [python, "-c", start]

    def run(self, *arguments: str) -> str:
        """Run a `hyblink` command; returns its output. Raises CalledProcessError and prints the output on failure."""
        done = subprocess.run(
            [*self._command, *arguments], env=self._environment, cwd=self._folder, capture_output=True, text=True
        )
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            done.check_returncode()
        return done.stdout

    def serve(self, port: int) -> subprocess.Popen[bytes]:
        """Start the API of this installation in a new process."""
        return subprocess.Popen([*self._command, "serve", "--port", str(port)], env=self._environment, cwd=self._folder)


def ask(base: str, method: str, path: str, body: Any) -> dict[str, Any]:
    """Send one request; returns status and decoded body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return {"status": answer.status, "body": json.load(answer)}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": json.loads(error.read() or b"null")}


def _ready(base: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"the API ended with {process.returncode}")
        try:
            if ask(base, "GET", "/readyz", None)["status"] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit("the API did not become ready")


def _warm(base: str) -> None:
    """Send requests until all models are loaded. Re-rankers are loaded in the background at first use."""
    search = {"query": "warm up", "collection": "docs", "rerank": {"top": 2, "budget_ms": 60000}}
    link = {"text": "json.dump", "collection": "api", "rerank": True, "budget_ms": 120000, "detectors": ["elq"]}
    for _ in range(240):
        searched = ask(base, "POST", "/v1/search", search)["body"]["rerank"]
        linked = ask(base, "POST", "/v1/link", link)["body"]["missing"]
        if searched["error"] == "" and not linked:
            return
        time.sleep(0.5)
    sys.exit("the models did not load")


def record(installation: Installation) -> Iterator[str]:
    """Ingest the corpus, start the API, and yield one JSON line per request with request, status and body."""
    for package in PACKAGES:
        installation.run("ingest", "--python-package", package, "-c", "docs")
    for package in KB_PACKAGES:
        installation.run("kb", "load", "--python-package", package, "-k", "api")
    installation.run("annotate", "-c", "docs", "-k", "api")
    port = _free_port()
    process = installation.serve(port)
    try:
        base = f"http://127.0.0.1:{port}"
        _ready(base, process)
        _warm(base)
        for method, path, body in requests():
            answer = canonical(ask(base, method, path, body))
            yield json.dumps({"request": [method, path, body], **answer}, sort_keys=True, ensure_ascii=False)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def compare(before: Path, after: Path, tolerance: float = 1e-5) -> int:
    """Print every request whose responses differ; returns how many.

    Floats may differ by the relative or absolute `tolerance`; everything else must be equal.
    """
    one, other = (path.read_text(encoding="utf-8").splitlines() for path in (before, after))
    different, same = abs(len(one) - len(other)), 0
    for old, new in zip(one, other, strict=False):
        if old == new:
            same += 1
            continue
        was, now = json.loads(old), json.loads(new)
        if was["request"][1] == "/openapi.json":
            print("openapi.json differs; compare the two documents by hand")
            continue
        found = [
            (path, left, right) for path, left, right in _differences(was, now, "") if not _near(left, right, tolerance)
        ]
        if not found:
            continue
        different += 1
        print(json.dumps(was["request"])[:300])
        for path, left, right in found:
            print(f"  {path}: {left!r} -> {right!r}"[:300])
    print(
        f"{len(one)} answers before, {len(other)} after; {same} the same to the byte, {different} differ by more than "
        f"{tolerance:g} in a number or in anything else"
    )
    return different


def _near(left: Any, right: Any, tolerance: float) -> bool:
    if not isinstance(left, float) or not isinstance(right, float):
        return False
    return math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)


def _differences(left: Any, right: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            yield from _differences(left.get(key), right.get(key), f"{path}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for at, (mine, theirs) in enumerate(zip(left, right, strict=True)):
            yield from _differences(mine, theirs, f"{path}[{at}]")
    elif left != right:
        yield path, left, right


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.recorder", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("--engine", choices=("embedded", "opensearch"), default="embedded")
    recording.add_argument("--host", default="http://127.0.0.1:9200", help="a node for --engine opensearch")
    recording.add_argument("--python", default=sys.executable, help="the interpreter of the installation")
    recording.add_argument("--path", type=Path, help="a checkout to record instead of what is installed")
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "compare":
        sys.exit(1 if compare(chosen.before, chosen.after) else 0)
    folder = Path(tempfile.mkdtemp(prefix="hyblink-recorded-"))
    try:
        made = Installation(folder, chosen.python, chosen.path, chosen.engine, chosen.host)
        with chosen.out.open("w", encoding="utf-8") as out:
            for line in record(made):
                out.write(line + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
