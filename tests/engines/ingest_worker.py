"""A process that ingests a file, acknowledging each batch into another file: made to be killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from support.encoders import use_fake_encoder

from hyblink.app.bootstrap import build
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.ingest.pipeline import RejectsFile, ingest
from hyblink.indexer.readers.files import FileSource


def main(rows: str, acknowledged: str, version: str) -> None:
    app = build()
    use_fake_encoder(app)
    engine = app.catalog.engine("c")

    def upsert(documents, progress):  # type: ignore[no-untyped-def]
        result = app.documents.upsert("c", documents, encode=False, progress=progress)
        with Path(acknowledged).open("a") as out:
            out.write("".join(f"{item.id} {version}\n" for item in result.items))
            out.flush()
            os.fsync(out.fileno())
        return result

    ingest(FileSource(Path(rows)), engine, upsert, rejects=RejectsFile(Path(rows + ".rejects")), batch_documents=10)
    encode_now(app, "c")
    engine.compact()
    engine.snapshot()
    app.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
