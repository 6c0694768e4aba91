"""Rate limits of API keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hyblink.app.access.keys import ApiKey
from hyblink.app.core.errors import (
    RateLimitedError,
)


class RateLimits:
    """A token bucket for each API key, in this process. A bucket holds one minute's requests and refills evenly."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float, str]] = {}

    def take(self, key: ApiKey, request: str) -> None:
        """Count a request of a key. Raises RateLimitedError, with the time to wait, if the key is over its limit.

        `request` is the request's id; repeated calls for the same request count once.
        """
        limit = key.per_minute or self._per_minute
        if not limit:
            return
        now = self._clock()
        with self._lock:
            left, then, last = self._buckets.get(key.id, (float(limit), now, ""))
            if request and request == last:
                return
            left = min(float(limit), left + (now - then) * limit / 60)
            if left < 1:
                raise RateLimitedError(
                    "too many requests by this key",
                    expected=f"at most {limit} a minute",
                    retry_after_s=(1 - left) * 60 / limit,
                )
            self._buckets[key.id] = (left - 1, now, request)
