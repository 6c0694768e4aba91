"""The connection to an OpenSearch cluster: retries, back-pressure, request limits, and translation of errors."""

from __future__ import annotations

import logging
import random
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from opensearchpy import OpenSearch
from opensearchpy.exceptions import (
    AuthenticationException,
    AuthorizationException,
    ConnectionError,  # noqa: A004
    OpenSearchException,
    SSLError,
    TransportError,
)
from opensearchpy.helpers.signer import Urllib3AWSV4SignerAuth

from hyblink.app.core.errors import (
    ConflictError,
    HyblinkError,
    InvalidInputError,
    StorageFullError,
    UnavailableError,
    WriterConflictError,
)
from hyblink.app.core.settings import OpenSearchSettings

PLUGIN = "opensearch-hyblink"
_LONGEST_CALL = 3
"""A call is not retried after this many times the setting `timeout_s`."""

_PLUGIN_KNOWN_S = 60.0
_CLOCK_S = 60.0
BULK_PATIENCE_S = 5
"""How many seconds the cluster may hold a bulk request that waits for a shard."""

_PIT_KEPT = "5m"
_REPLICAS_PATIENCE_S = 10
"""How many seconds to wait for the replicas of a new index."""

_TRY_AGAIN = {429, 502, 503, 504}
_OLDEST_PLUGIN = (0, 4, 0)
log = logging.getLogger(__name__)
_OLDEST = (3, 0)
"""The oldest supported version. Earlier BM25 scores include the factor k1 + 1 = 2.2."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ItemError:
    """A bulk request's item that was refused, with its HTTP status and the reason."""

    index: str
    item_id: str
    status: int
    reason: str


def _version(said: str) -> tuple[int, ...]:
    """A version string as a tuple of numbers.

    >>> _version("3.8.0-SNAPSHOT")
    (3, 8, 0)
    """
    return tuple(int(part) for part in str(said).split("-")[0].split("."))


def _reason(error: object) -> str:
    """The message of an item's error, with its chain of causes."""
    if not isinstance(error, Mapping):
        return str(error)
    said = f"{error.get('type')}: {error.get('reason')}"
    return f"{said}: {_reason(error['caused_by'])}" if isinstance(error.get("caused_by"), Mapping) else said


def _is_disk_full(said: str) -> bool:
    return "flood-stage" in said or "disk usage exceeded" in said


def _disk_full(said: str) -> StorageFullError:
    return StorageFullError(f"OpenSearch takes no more writes, its disk is full: {said}")


def _root(error: OpenSearchException) -> str:
    """What went wrong at the bottom, such as "[Errno 111] Connection refused"."""
    info = error.info if isinstance(error, TransportError) else None
    cause = info if isinstance(info, Exception) else error
    return str(cause).rpartition(": ")[2][:300]


def translate(error: OpenSearchException) -> HyblinkError:
    """The hyblink error for an error of the OpenSearch client."""
    status = error.status_code if isinstance(error, TransportError) else "N/A"
    said = str(error)[:500]
    if isinstance(error, SSLError):
        return UnavailableError(f"the TLS connection to OpenSearch failed: {said}")
    if isinstance(error, AuthenticationException | AuthorizationException):
        return UnavailableError(f"OpenSearch refused the credentials: {said}", expected="a user that may do this")
    if isinstance(error, ConnectionError):
        return UnavailableError(
            f"OpenSearch did not answer: {_root(error)}",
            expected="a node at one of opensearch.hosts; `hyblink node start` starts one here",
        )
    if _is_disk_full(said):
        return _disk_full(said)
    if status == 409 or "resource_already_exists_exception" in said:
        return ConflictError(f"OpenSearch: {said}")
    return UnavailableError(f"OpenSearch answered {status}: {said}")


def check_shards(answer: Json) -> None:
    """Raise UnavailableError if a search timed out or a shard failed, since the result would be silently incomplete."""
    shards = answer["_shards"]
    if answer["timed_out"] or shards["failed"]:
        raise UnavailableError(
            "OpenSearch answered for some shards only",
            received=f"{shards['failed']} of {shards['total']} failed",
            expected="all shards in time",
        )


def _quiet() -> None:
    """Keep the client library from logging each failed try with tracebacks: `Cluster.call` says it in a line."""
    for name in ("opensearch", "urllib3.connectionpool"):
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(logging.ERROR)


class Cluster:
    """A client for an OpenSearch cluster, with retries and checks. Safe to share between threads."""

    def __init__(self, settings: OpenSearchSettings) -> None:
        self.settings = settings
        self.prefix = settings.prefix
        self._clock = threading.Lock()
        self._told: tuple[float, float] | None = None
        self._plugin_everywhere, self._plugin_known_until = False, 0.0
        self._away = False
        _quiet()
        self._pool = ThreadPoolExecutor(2 * settings.bulk_requests, thread_name_prefix="hyblink-bulk")
        self.client = OpenSearch(hosts=list(settings.hosts), **_connection_options(settings))

    def close(self) -> None:
        """Close the connection pool."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.client.close()

    def call(self, run: Callable[[], Any]) -> Any:
        """Run a client call and return its result. Busy or unreachable clusters are retried with exponential back-off.

        Raises UnavailableError, StorageFullError or ConflictError.
        """
        deadline = time.monotonic() + _LONGEST_CALL * self.settings.timeout_s
        for attempt in range(self.settings.retries + 1):
            try:
                made = run()
                if self._away:
                    self._away = False
                    log.warning("OpenSearch answers again")
                return made
            except OpenSearchException as error:
                status = error.status_code if isinstance(error, TransportError) else "N/A"
                away = isinstance(error, ConnectionError) and not isinstance(error, SSLError)
                last = attempt == self.settings.retries or time.monotonic() > deadline
                if last or not (away or status in _TRY_AGAIN):
                    raise translate(error) from error
                if away and not self._away:
                    self._away = True
                    hosts = ", ".join(self.settings.hosts)
                    log.warning("OpenSearch at %s does not answer (%s): trying again", hosts, _root(error))
                self._pause(attempt)
        raise AssertionError("unreachable")

    def _pause(self, attempt: int) -> None:
        time.sleep(min(self.settings.longest_pause_s, 0.1 * 2**attempt) * (0.5 + random.random() / 2))

    def time(self) -> float:
        """Seconds since 1970 by the cluster's clock, on which machines with other clocks agree. Asked once a minute.

        This machine's own clock where the cluster does not tell.
        """
        with self._clock:
            known = self._told
            if known is None or time.monotonic() - known[1] > _CLOCK_S:
                began = time.monotonic()
                try:
                    nodes = self.call(lambda: self.client.nodes.stats(node_id="_local", metric="os"))["nodes"]
                    told = max(int(node["timestamp"]) for node in nodes.values()) / 1e3
                    known = self._told = (told, (began + time.monotonic()) / 2)
                except (HyblinkError, KeyError, ValueError) as error:
                    log.debug("the cluster's clock is not known: %s", error)
            return time.time() if known is None else known[0] + time.monotonic() - known[1]

    def check_version(self) -> tuple[int, ...]:
        """The server's version. Raises UnavailableError if it is too old or no OpenSearch."""
        found = self.call(self.client.info)["version"]
        version = _version(found["number"])
        if found.get("distribution") != "opensearch" or version < _OLDEST:
            raise UnavailableError(
                "the server is not one that hyblink can use",
                received=f"{found.get('distribution', 'unknown')} {found['number']}",
                expected="OpenSearch 3.0 or newer",
            )
        return version

    @property
    def has_plugin(self) -> bool:
        """Whether the settings allow the hyblink plugin and every node has it, new enough. Cached for a minute."""
        if not self.settings.plugin:
            return False
        if self._plugin_known_until < time.monotonic():
            self._plugin_everywhere = self._look_for_plugin()
            self._plugin_known_until = time.monotonic() + _PLUGIN_KNOWN_S
        return self._plugin_everywhere

    def _look_for_plugin(self) -> bool:
        asked = {"filter_path": "nodes.*.plugins.name,nodes.*.plugins.version"}
        found = self.call(lambda: self.client.nodes.info(metric="plugins", params=asked))
        nodes = [
            {item["name"]: item["version"] for item in node.get("plugins", [])} for node in found["nodes"].values()
        ]
        return bool(nodes) and all(_version(node.get(PLUGIN, "0")) >= _OLDEST_PLUGIN for node in nodes)

    def complete(self, index: str, body: Json) -> Json:
        """The response of the plugin's `complete` endpoint. Raises UnavailableError if a shard did not answer."""
        path = f"/{index}/_hyblink/complete"
        answer: Json = self.call(lambda: self.client.transport.perform_request("POST", path, body=body))
        shards = answer["_shards"]
        if shards["successful"] < shards["total"]:
            reasons = [shard.get("reason", {}).get("reason", "") for shard in shards.get("failures", [])]
            raise UnavailableError(
                f"OpenSearch answered for some shards only{': ' + reasons[0] if reasons else ''}",
                received=f"{shards['successful']} of {shards['total']}",
                expected="all shards in time",
            )
        return answer

    def search_many(self, index: str, bodies: Sequence[Json]) -> list[Json]:
        """The responses to several searches sent in one request, in their order.

        Raises UnavailableError if a search failed or a shard did not answer.
        """
        if not bodies:
            return []
        head = {"index": index, "search_type": self.settings.search_type}
        lines = [line for body in bodies for line in (head, body)]
        for attempt in range(self.settings.retries + 1):
            answers: list[Json] = self.call(lambda: self.client.msearch(body=lines))["responses"]
            if attempt == self.settings.retries or not any(item.get("status") in _TRY_AGAIN for item in answers):
                break
            self._pause(attempt)
        for answer in answers:
            if "error" in answer:
                error = answer["error"]
                if answer.get("status") == 404:
                    raise UnavailableError(f"OpenSearch has no index {index!r}")
                cause = (error.get("root_cause") or [error])[0]
                raise UnavailableError(f"OpenSearch could not search: {cause.get('type')}: {cause.get('reason')}")
            check_shards(answer)
        return answers

    def search(self, index: str, body: Json) -> Json:
        """The response to one search; see `search_many`."""
        return self.search_many(index, [body])[0]

    def get_many(self, index: str, ids: Sequence[str], fields: Sequence[str] = ()) -> list[Json]:
        """The documents with the given ids that exist, read in real time, with the named fields or all.

        Raises UnavailableError if a document could not be read.
        """
        options = {"_source": ",".join(fields)} if fields else {}
        answer = self.call(lambda: self.client.mget(index=index, body={"ids": list(ids)}, params=options))
        for item in answer["docs"]:
            if "error" in item:
                raise UnavailableError("OpenSearch could not read a document", received=item["error"].get("reason"))
        return [item for item in answer["docs"] if item.get("found")]

    def scan(self, index: str, body: Json, field: str, size: int) -> Iterator[list[Json]]:
        """All hits of a search in pages of `size`, ascending by `field`, which must hold unique numbers.

        The scan runs on a point-in-time view, so later writes do not affect it.
        """
        found = self.call(lambda: self.client.create_pit(index=index, params={"keep_alive": _PIT_KEPT}))
        pit = found["pit_id"]
        try:
            if found["_shards"]["failed"]:
                raise UnavailableError("OpenSearch could not open all shards", received=found["_shards"])
            page: Json = {**body, "size": size, "sort": [{field: "asc"}], "track_total_hits": False}
            while True:
                page["pit"] = {"id": pit, "keep_alive": _PIT_KEPT}
                answer = self.call(lambda: self.client.search(body=page))
                check_shards(answer)
                pit = answer.get("pit_id", pit)
                hits = answer["hits"]["hits"]
                if hits:
                    yield hits
                if len(hits) < size:
                    return
                page["search_after"] = hits[-1]["sort"]
        finally:
            with suppress(OpenSearchException):
                self.client.delete_pit(body={"pit_id": [pit]})

    def refresh(self, *indexes: str) -> None:
        """Make earlier writes visible to searches. Raises UnavailableError if a shard failed."""
        answer = self.call(lambda: self.client.indices.refresh(index=",".join(indexes)))
        if answer["_shards"]["failed"]:
            raise UnavailableError("OpenSearch could not refresh all shards", received=answer["_shards"])

    def bulk(self, actions: Iterable[tuple[Json, Json | None]]) -> list[ItemError]:
        """Send (action, source) pairs in bulk requests of bounded size, a few at once. Returns the refused items.

        Every target must be an alias: a writer uses the alias of its own term, which is removed when the next writer
        takes over. Items that the cluster was too busy for are retried. Raises UnavailableError, StorageFullError, or
        WriterConflictError if another writer has taken over.
        """
        refused: list[ItemError] = []
        under_way: deque[Future[list[ItemError]]] = deque()
        try:
            for part in _parts(actions, self.settings.bulk_bytes):
                if len(under_way) == self.settings.bulk_requests:
                    refused += under_way.popleft().result()
                under_way.append(self._pool.submit(self._send, part))
            while under_way:
                refused += under_way.popleft().result()
        finally:
            wait(under_way)  # no request may still be running when the caller sees the failure
        return refused

    def _send(self, lines: list[bytes]) -> list[ItemError]:
        refused: list[ItemError] = []
        # The timeout is part of the path because the client would interpret a parameter `timeout` itself.
        path = f"/_bulk?require_alias=true&timeout={BULK_PATIENCE_S}s"
        send = self.client.transport.perform_request
        for attempt in range(self.settings.retries + 1):
            answer = self.call(partial(send, "POST", path, body=b"".join(lines)))
            again: list[bytes] = []
            for line, item in zip(lines, answer["items"], strict=True):
                result = next(iter(item.values()))
                error = result.get("error")
                if error is None:
                    continue
                reason = _reason(error)
                if _is_disk_full(reason):
                    raise _disk_full(reason)
                if "create" in item and result["status"] == 409:
                    continue  # a retry of a request that had succeeded: keys are unique to this writer
                if "require_alias" in reason:
                    raise WriterConflictError(
                        "another process has taken over writing to this collection", expected="one writer at a time"
                    )
                if (
                    result["status"] in _TRY_AGAIN or ("update" in item and result["status"] == 409)
                ) and attempt < self.settings.retries:
                    again.append(line)
                else:
                    refused.append(ItemError(str(result["_index"]), str(result["_id"]), int(result["status"]), reason))
            if not again:
                break
            lines = again
            self._pause(attempt)
        return refused

    def ensure_index(self, name: str, body: Json | None = None, alias: str | None = None) -> None:
        """Create an index unless one of this name (or alias) exists, and wait until it can be searched."""
        asked = alias or name
        if not self.call(lambda: self.client.indices.exists(index=asked)):
            self.create_index(name, body)
        # An index that another process is just creating exists, and is "yellow", before its shards are active.
        self.call(lambda: self.client.cluster.health(index=asked, params={"wait_for_active_shards": "1"}))

    def create_index(self, name: str, body: Json | None = None) -> None:
        """Create an index, unless another process was faster, and wait until its replicas are active.

        A replica that is still initialising cannot be promoted, so acknowledged writes would be unreachable if the
        primary's node failed. Replicas for which there is no node are not waited for.
        """
        with suppress(ConflictError):
            self.call(lambda: self.client.indices.create(index=name, body=body or {}))
        wanted = 1
        for _ in range(_REPLICAS_PATIENCE_S):
            path = f"/_cluster/health/{name}?wait_for_active_shards={wanted}&timeout=1s"
            found = self.call(lambda path=path: self.client.transport.perform_request("GET", path, ignore=(408,)))  # type: ignore[misc]
            active, primaries = found["active_shards"], max(1, found["active_primary_shards"])
            copies = (active + found["initializing_shards"] + found["unassigned_shards"]) // primaries
            wanted = primaries * min(copies, found["number_of_data_nodes"])
            if 0 < wanted <= active:
                return
        log.warning("the replicas of %s are not there after %d s", name, _REPLICAS_PATIENCE_S)

    def delete_index(self, index: str) -> None:
        """Delete an index if it exists."""
        self.call(lambda: self.client.indices.delete(index=index, params={"ignore_unavailable": "true"}))


def _parts(actions: Iterable[tuple[Json, Json | None]], limit: int) -> Iterator[list[bytes]]:
    """Split actions into bulk requests of at most `limit` bytes, or one item if it alone is larger.

    A request is a list of encoded items.
    """
    part: list[bytes] = []
    size = 0
    for action, source in actions:
        line = orjson.dumps(action) + b"\n" + (orjson.dumps(source) + b"\n" if source is not None else b"")
        if part and size + len(line) > limit:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


def _connection_options(settings: OpenSearchSettings) -> Json:
    options: Json = {
        "timeout": settings.timeout_s,
        "max_retries": 0,  # `Cluster.call` retries, depending on the kind of error
        # A node that did not answer is skipped for a second, however often it failed.
        "retry_on_timeout": True,
        "dead_timeout": 1,
        "timeout_cutoff": 0,
        "maxsize": settings.connections,
        "http_compress": settings.compress,
        "pool_maxsize": settings.connections,
    }
    if settings.aws_region:
        try:
            import boto3
        except ImportError as error:
            raise InvalidInputError(
                "signing requests for AWS needs boto3", expected="pip install 'hyblink[aws]'"
            ) from error
        credentials = boto3.Session().get_credentials()
        options["http_auth"] = Urllib3AWSV4SignerAuth(credentials, settings.aws_region, settings.aws_service)
    elif settings.user:
        # Encoded here as UTF-8, as OpenSearch expects; the client would use Latin-1.
        named = f"{settings.user}:{settings.password.get_secret_value()}".encode()
        options["headers"] = {"authorization": f"Basic {b64encode(named).decode()}"}
    if any(host.startswith("https") for host in settings.hosts):
        options |= {"verify_certs": settings.verify_certs, "ssl_show_warn": False}
        if settings.ca_file:
            options["ca_certs"] = str(settings.ca_file)
        if settings.client_certificate:
            options["client_cert"] = str(settings.client_certificate)
            options["client_key"] = str(settings.client_key)
    return options
