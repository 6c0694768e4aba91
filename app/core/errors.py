"""The exception classes of hyblink, with their HTTP statuses.

::

    HyblinkError
    ├── UserError                    the caller can fix it; the message is safe to show (4xx)
    │   ├── InvalidInputError        a value is malformed: names what was received and what was expected (400)
    │   ├── NotFoundError            a document, collection, generation or profile does not exist (404)
    │   ├── ConflictError            the thing exists already, or its state does not allow the operation (409)
    │   ├── WriterConflictError      another process is writing to the same collection (409)
    │   ├── TooLargeError            the request is over a stated limit (413)
    │   ├── OverBudgetError          the request costs more CPU time or memory than one may (422)
    │   ├── RequestLeftError         the client closed the connection (499)
    │   ├── UnauthorizedError        no API key, or an unknown one (401)
    │   ├── ForbiddenError           the key's role does not allow the operation (403)
    │   └── RateLimitedError         too many requests for this key (429)
    ├── UnavailableError             a component is missing or down; trying later may help (503)
    │   ├── EncoderUnavailableError  the encoder's packages or weights are not installed
    │   ├── SourceUnavailableError   a source of documents does not answer
    │   └── DeadlineExceededError    no first-stage retriever answered before the deadline
    ├── StorageFullError             the disk is full; the write was rolled back (507)
    └── CorruptionError              a file does not match its manifest, or a store fails its checks (500)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = [
    "ConflictError",
    "CorruptionError",
    "DeadlineExceededError",
    "EncoderUnavailableError",
    "ForbiddenError",
    "HyblinkError",
    "InvalidInputError",
    "NotFoundError",
    "OverBudgetError",
    "RateLimitedError",
    "RequestLeftError",
    "SourceUnavailableError",
    "StorageFullError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UserError",
    "WriterConflictError",
]

_SHOWN = 120


def shown(value: object) -> str:
    """A value's repr for an error message: at most 120 characters, lone surrogates escaped."""
    text = repr(value)
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class HyblinkError(Exception):
    """Base of all errors below. `code` is stable, so clients may match on it. `status` is the HTTP status."""

    code = "internal_error"
    status = 500

    def __init__(self, message: str, *, received: object = None, expected: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.received = None if received is None else shown(received)
        self.expected = expected

    def __str__(self) -> str:
        parts = [self.message]
        if self.received is not None:
            parts.append(f"received {self.received}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        return "; ".join(parts)


class UserError(HyblinkError):
    """The caller can fix the problem. The message is safe to show to them."""

    code = "bad_request"
    status = 400


class InvalidInputError(UserError):
    """A value is malformed, out of range or of the wrong type."""

    code = "invalid_input"
    status = 400


class NotFoundError(UserError):
    """The named thing does not exist. `choices` are the names of collections that do, for callers who may know them."""

    code = "not_found"
    status = 404

    def __init__(
        self,
        message: str,
        *,
        received: object = None,
        expected: str | None = None,
        choices: Sequence[str] | None = None,
    ) -> None:
        if choices is not None:
            expected = f"one of {', '.join(choices) or '(none yet)'}"
        super().__init__(message, received=received, expected=expected)
        self.choices = choices

    def among(self, visible: Callable[[str], bool]) -> NotFoundError:
        """The same error with the visible choices only."""
        if self.choices is None:
            return self
        found = NotFoundError(self.message, choices=[name for name in self.choices if visible(name)])
        found.received = self.received
        return found


class ConflictError(UserError):
    """The named thing exists already, or its state does not allow the operation."""

    code = "conflict"
    status = 409


class WriterConflictError(ConflictError):
    """Another process holds the collection's writer lock."""

    code = "writer_conflict"


class TooLargeError(UserError):
    """A request or row is over a stated limit."""

    code = "too_large"
    status = 413


class OverBudgetError(UserError):
    """A request costs more CPU time or memory than one request may."""

    code = "over_budget"
    status = 422


class RequestLeftError(UserError):
    """The client closed the connection before its answer was there."""

    code = "request_left"
    status = 499


class UnauthorizedError(UserError):
    """The request has no API key, or an unknown one."""

    code = "unauthorized"
    status = 401


class ForbiddenError(UserError):
    """The key is known, but its role or its collections do not allow the operation."""

    code = "forbidden"
    status = 403


class RateLimitedError(UserError):
    """Too many requests. `retry_after_s` becomes the `Retry-After` header, in seconds."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, *, expected: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, expected=expected)
        self.retry_after_s = retry_after_s


class UnavailableError(HyblinkError):
    """A required component is missing or down. Trying later may help."""

    code = "unavailable"
    status = 503


class SourceUnavailableError(UnavailableError):
    """A source of documents does not answer."""


class EncoderUnavailableError(UnavailableError):
    """The encoder's packages or weights are not installed here."""

    code = "encoder_unavailable"


class DeadlineExceededError(UnavailableError):
    """No first-stage retriever ("leg") answered before the deadline."""

    code = "deadline_exceeded"


class StorageFullError(HyblinkError):
    """The disk is full. The write was rolled back, and earlier data is intact."""

    code = "storage_full"
    status = 507


class CorruptionError(HyblinkError):
    """A file does not match its manifest, or a store fails its integrity check."""

    code = "corruption"
