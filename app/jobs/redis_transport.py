"""A Celery broker in Redis: kombu's transport, whose workers outlive a Redis server that ends and comes back.

When a worker loses its connection, Celery drops it and connects again. What still holds a channel of the dropped
connection, such as a finished task that confirms its message, then fails in kombu 5.7 with an AttributeError. Celery
expects errors of connections there, and the worker ended. Here it is one. Redis delivers an unconfirmed message again
after `jobs.visibility_timeout_s`.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError

SCHEME = "hyblink-redis"


class Channel(redis.Channel):  # type: ignore[misc]
    """A channel that tells that its connection was dropped."""

    def _connparams(self, asynchronous: bool = False) -> Any:
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the connection of this channel was lost and dropped")
        return super()._connparams(asynchronous)


class Transport(redis.Transport):  # type: ignore[misc]
    """Kombu's Redis transport with these channels."""

    Channel = Channel


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
