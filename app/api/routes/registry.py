"""The registry of route groups. OpenAPI lists them in this order."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from hyblink.app.api.routes import (
    access,
    collections,
    documents,
    feedback,
    generations,
    installation,
    jobs,
    linking,
    operation,
    retraining,
    search,
)
from hyblink.app.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Routes:
    """A group of routes, named by its subject."""

    subject: str
    routes: APIRouter


ROUTERS: Registry[Routes] = Registry("group of routes", lambda group: group.subject)
ROUTERS.add(
    Routes("search", search.router),
    Routes("documents", documents.router),
    Routes("linking", linking.router),
    Routes("collections", collections.router),
    Routes("jobs", jobs.router),
    Routes("feedback", feedback.router),
    Routes("generations", generations.router),
    Routes("retraining", retraining.router),
    Routes("access", access.router),
    Routes("installation", installation.router),
    Routes("operation", operation.router),
)
