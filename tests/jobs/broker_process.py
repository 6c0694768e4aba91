"""A worker or an API with the fake encoder, in a process of its own: made to be killed."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.encoders import FakeDense

from hyblink.app import bootstrap
from hyblink.app.application import App
from hyblink.app.core.logs import set_up
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.worker import run, tasks

set_up(logging.WARNING, "json")
plain = bootstrap.build


class SlowDense(FakeDense):
    """Takes its time, so that there is a middle to be killed in."""

    id = os.environ.get("FAKE_ID", FakeDense.id)

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        time.sleep(float(os.environ.get("SLOW_S", "0")) * len(texts))
        return super().encode_passages(titles, texts)


def build(settings: Settings | None = None) -> App:
    made = plain(settings)
    slow = SlowDense()
    made.encoders.add_dense(FakeDense())
    made.encoders.add_dense(slow)
    made.encoders.use_as_default(slow.id)
    return made


tasks.build = run.build = build  # type: ignore[attr-defined]

if sys.argv[1] == "worker":
    sys.exit(run.run_worker(Settings(), sys.argv[2].split(","), concurrency=1, beat="beat" in sys.argv))
elif sys.argv[1] == "load":
    from hyblink.app.operations.ingestion import load_entities
    from hyblink.indexer.readers.entities.files import read_entities

    made = build()
    load_entities(made, "kb", read_entities(Path(sys.argv[2])), wait=False)
    made.close()
else:
    import uvicorn

    from hyblink.app.api.application import create_api

    made = build()
    uvicorn.run(create_api(made), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
