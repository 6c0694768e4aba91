"""The HTTP client through which the UI calls the service."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

import httpx

_TIMEOUT_S = 60.0


class ApiError(Exception):
    """The service returned an error or did not respond. The message can be shown to the user.

    `status` is the HTTP status, 0 if there was no response.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A client of the HTTP API. Methods return the decoded JSON and raise ApiError if the call fails.

    `key` None sends no API key. `transport` replaces the HTTP transport in tests.
    """

    def __init__(self, base_url: str, key: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=_TIMEOUT_S, transport=transport)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._answer(method, path, **options)
        try:
            return cast("dict[str, Any]", answer.json())
        except ValueError as error:
            raise ApiError(f"the service at {self._http.base_url} did not answer: {type(error).__name__}") from error

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer to a request. Raises ApiError if there is none, or if it says an error."""
        try:
            answer = self._http.request(method, path, **options)
            if answer.is_success:
                return answer
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ApiError(f"the service at {self._http.base_url} did not answer: {type(error).__name__}") from error
        detail = body.get("error", {}) if isinstance(body, dict) else {}
        expected = f" (expected {detail['expected']})" if detail.get("expected") else ""
        raise ApiError(f"{detail.get('message', answer.reason_phrase)}{expected}", answer.status_code)

    def whoami(self) -> dict[str, Any]:
        """Id, role, collections and note of this client's API key."""
        return self._call("GET", "/v1/whoami")

    def signals(self) -> list[dict[str, Any]]:
        """The retrieval and ranking signals, with labels and colours."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/signals")["signals"])

    def formats(self) -> list[dict[str, Any]]:
        """The file formats that can be ingested."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/formats")["formats"])

    def collections(self) -> list[dict[str, Any]]:
        """All collections, with kind, counts and serving generation."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/collections")["collections"])

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Run a search; returns one page of results."""
        return self._call("POST", "/v1/search", json=body)

    def explain(self, body: dict[str, Any]) -> dict[str, Any]:
        """Explain the rank of a document for a query, or why it is not in the results."""
        return self._call("POST", "/v1/explain", json=body)

    def link(self, body: dict[str, Any]) -> dict[str, Any]:
        """Link the mentions of texts to entities."""
        return self._call("POST", "/v1/link", json=body)

    def entity(self, collection: str, entity_id: str) -> dict[str, Any]:
        """The stored entity."""
        return self._call("GET", f"/v1/entities/{quote(entity_id, safe='')}", params={"collection": collection})

    def mentions(self, documents: str, entity_id: str) -> dict[str, Any]:
        """The documents of the collection `documents` that mention an entity, and entities mentioned with it."""
        path = f"/v1/entities/{quote(entity_id, safe='')}/mentions"
        return self._call("GET", path, params={"documents": documents})

    def judge(self, collection: str, query: str, document_id: str, grade: int) -> None:
        """Store a relevance judgement of a document for a query. `grade` is 0 (irrelevant) to 3."""
        judgement = {"query": query, "document_id": document_id, "grade": grade}
        self._call("POST", "/v1/judgements", json={"collection": collection, "judgements": [judgement]})

    def click(self, search_id: str, document_id: str) -> None:
        """Record a click on a document in the results of a logged search."""
        self._call("POST", "/v1/clicks", json={"search_id": search_id, "document_id": document_id})

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Upload a file for an ingestion job; returns its id among other fields."""
        return self._call("POST", "/v1/uploads", params={"name": name}, content=content)

    def begin(self, body: dict[str, Any]) -> dict[str, Any]:
        """Start a job."""
        return self._call("POST", "/v1/jobs", json=body)

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/jobs", params={"limit": limit})["jobs"])

    def rejects(self, job_id: str) -> list[dict[str, Any]]:
        """The rows that an ingestion job rejected."""
        return cast("list[dict[str, Any]]", self._call("GET", f"/v1/jobs/{job_id}/rejects")["rejects"])

    def change_job(self, job_id: str, act: str) -> dict[str, Any]:
        """Cancel or resume a job. `act` is "cancel" or "resume"."""
        return self._call("POST", f"/v1/jobs/{job_id}/{act}")

    def queues(self) -> dict[str, Any]:
        """Live workers, waiting passages per collection and the number of dead letters."""
        return self._call("GET", "/v1/admin/queues")

    def generations(self, collection: str) -> dict[str, Any]:
        """The generations of a collection and the id of the serving one (`current`)."""
        return self._call("GET", "/v1/admin/generations", params={"collection": collection})

    def rebuild(self, collection: str, note: str) -> dict[str, Any]:
        """Start a job that builds and publishes a new generation."""
        return self._call("POST", "/v1/admin/generations", json={"collection": collection, "note": note})

    def retrain(self, body: dict[str, Any]) -> dict[str, Any]:
        """Start a job that retrains the encoder of a collection."""
        return self._call("POST", "/v1/admin/retrain", json=body)

    def approve(self, job_id: str) -> dict[str, Any]:
        """Approve the candidate of a retraining job for publication."""
        return self._call("POST", f"/v1/admin/retrain/{job_id}/approve")

    def roll_back(self, collection: str) -> None:
        """Make the previous generation the serving one again."""
        self._call("POST", "/v1/admin/rollback", params={"collection": collection})

    def publish(self, collection: str, generation: str) -> None:
        """Make a generation the serving one."""
        path = f"/v1/admin/generations/{quote(generation, safe='')}/publish"
        self._call("POST", path, params={"collection": collection})

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """The audit log of administrative actions, newest first."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/admin/audit", params={"limit": limit})["acts"])

    def dead_letters(self) -> list[dict[str, Any]]:
        """The tasks that failed permanently (dead letters)."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/admin/dead-letters")["dead_letters"])

    def replay(self, letter: str) -> None:
        """Run the task of a dead letter again."""
        self._call("POST", f"/v1/admin/dead-letters/{quote(letter, safe='')}/replay")

    def source(self, collection: str, document_id: str) -> tuple[bytes, str]:
        """(the file that a document was read from, its media type). Where the file is gone: its stored text."""
        path = f"/v1/documents/{quote(document_id, safe='')}/source"
        answer = self._answer("GET", path, params={"collection": collection})
        return answer.content, answer.headers.get("content-type", "")

    def document(self, collection: str, document_id: str) -> dict[str, Any]:
        """The stored document."""
        return self._call("GET", f"/v1/documents/{quote(document_id, safe='')}", params={"collection": collection})
