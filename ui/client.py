"""The UI's only way to the service: HTTP."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

import httpx

_TIMEOUT_S = 60.0


class ApiError(Exception):
    """The service refused or could not be reached; the message is fit to show. `status` 0: it did not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A small client of the API."""

    def __init__(self, base_url: str, key: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=_TIMEOUT_S, transport=transport)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **options)
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ApiError(f"the service at {self._http.base_url} did not answer: {type(error).__name__}") from error
        if answer.is_success:
            return cast("dict[str, Any]", body)
        detail = body.get("error", {}) if isinstance(body, dict) else {}
        expected = f" (expected {detail['expected']})" if detail.get("expected") else ""
        raise ApiError(f"{detail.get('message', answer.reason_phrase)}{expected}", answer.status_code)

    def whoami(self) -> dict[str, Any]:
        """What this client's key may do."""
        return self._call("GET", "/v1/whoami")

    def signals(self) -> list[dict[str, Any]]:
        """The signals that the service knows, and how they are shown."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/signals")["signals"])

    def formats(self) -> list[dict[str, Any]]:
        """The file formats that can be ingested."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/formats")["formats"])

    def collections(self) -> list[dict[str, Any]]:
        """Collections and what they hold."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/collections")["collections"])

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """A page of results."""
        return self._call("POST", "/v1/search", json=body)

    def explain(self, body: dict[str, Any]) -> dict[str, Any]:
        """Where a document stands, and where it was lost."""
        return self._call("POST", "/v1/explain", json=body)

    def link(self, body: dict[str, Any]) -> dict[str, Any]:
        """Links of texts."""
        return self._call("POST", "/v1/link", json=body)

    def entity(self, collection: str, entity_id: str) -> dict[str, Any]:
        """An entity as it was sent."""
        return self._call("GET", f"/v1/entities/{quote(entity_id, safe='')}", params={"collection": collection})

    def mentions(self, documents: str, entity_id: str) -> dict[str, Any]:
        """Where an entity is mentioned, and beside which others."""
        path = f"/v1/entities/{quote(entity_id, safe='')}/mentions"
        return self._call("GET", path, params={"documents": documents})

    def judge(self, collection: str, query: str, document_id: str, grade: int) -> None:
        """Say how well a document answers a query."""
        one = {"query": query, "document_id": document_id, "grade": grade}
        self._call("POST", "/v1/judgements", json={"collection": collection, "judgements": [one]})

    def click(self, search_id: str, document_id: str) -> None:
        """Say that a document was opened."""
        self._call("POST", "/v1/clicks", json={"search_id": search_id, "document_id": document_id})

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Store a file for an ingestion job."""
        return self._call("POST", "/v1/uploads", params={"name": name}, content=content)

    def begin(self, body: dict[str, Any]) -> dict[str, Any]:
        """Begin a job."""
        return self._call("POST", "/v1/jobs", json=body)

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """Jobs, the newest first."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/jobs", params={"limit": limit})["jobs"])

    def rejects(self, job_id: str) -> list[dict[str, Any]]:
        """Rows that a job has rejected."""
        return cast("list[dict[str, Any]]", self._call("GET", f"/v1/jobs/{job_id}/rejects")["rejects"])

    def change_job(self, job_id: str, act: str) -> dict[str, Any]:
        """`cancel` or `resume` a job."""
        return self._call("POST", f"/v1/jobs/{job_id}/{act}")

    def queues(self) -> dict[str, Any]:
        """Live workers, and what waits."""
        return self._call("GET", "/v1/admin/queues")

    def generations(self, collection: str) -> dict[str, Any]:
        """A collection's generations, and which one answers."""
        return self._call("GET", "/v1/admin/generations", params={"collection": collection})

    def rebuild(self, collection: str, note: str) -> dict[str, Any]:
        """Build the next generation in the background."""
        return self._call("POST", "/v1/admin/generations", json={"collection": collection, "note": note})

    def retrain(self, body: dict[str, Any]) -> dict[str, Any]:
        """Train a collection's encoder anew."""
        return self._call("POST", "/v1/admin/retrain", json=body)

    def approve(self, job_id: str) -> dict[str, Any]:
        """Let the candidate of a retraining answer."""
        return self._call("POST", f"/v1/admin/retrain/{job_id}/approve")

    def roll_back(self, collection: str) -> None:
        """Let the generation before the current one answer again."""
        self._call("POST", "/v1/admin/rollback", params={"collection": collection})

    def publish(self, collection: str, generation: str) -> None:
        """Let a generation answer."""
        path = f"/v1/admin/generations/{quote(generation, safe='')}/publish"
        self._call("POST", path, params={"collection": collection})

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """What administrators did, the newest first."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/admin/audit", params={"limit": limit})["acts"])

    def dead_letters(self) -> list[dict[str, Any]]:
        """Tasks that failed for good."""
        return cast("list[dict[str, Any]]", self._call("GET", "/v1/admin/dead-letters")["dead_letters"])

    def replay(self, letter: str) -> None:
        """Try the task of a dead letter again."""
        self._call("POST", f"/v1/admin/dead-letters/{quote(letter, safe='')}/replay")

    def document(self, collection: str, document_id: str) -> dict[str, Any]:
        """A document as it was sent."""
        return self._call("GET", f"/v1/documents/{quote(document_id, safe='')}", params={"collection": collection})
