"""The registry on OpenSearch: collections, generations and profiles are documents of the cluster's catalog index.

The path of a document is `<collection>/<key>`. The document `<collection>/generations/<id>/state` holds the change
counter and the writer's lease of a generation's store. All processes on all machines share these documents.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hyblink.app.core.errors import ConflictError, CorruptionError, HyblinkError
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.engines.opensearch.client import Cluster, Json
from hyblink.app.engines.opensearch.engine import OpenSearchEngine
from hyblink.app.engines.opensearch.knn import KNN, check_knn, knn_field
from hyblink.app.engines.opensearch.layout import Names
from hyblink.app.engines.opensearch.lease import FREE, Lease
from hyblink.app.engines.opensearch.records import ClusterRecords
from hyblink.app.engines.opensearch.state import StateDocuments
from hyblink.app.engines.opensearch.store import OpenSearchStore, new_state
from hyblink.app.engines.opensearch.templates import install_templates

_LOCKS = "_locks/"
log = logging.getLogger(__name__)


def _order_of_removal(path: str) -> int:
    """What makes a collection or generation visible goes first, what says that it is being deleted last."""
    return 0 if path.endswith(("/collection", "/generation")) else 2 if path.endswith("/deleting") else 1


class ClusterRegistry:
    """The `Registry` of one installation on a cluster, which is named by the setting `opensearch.prefix`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster = Cluster(settings.opensearch)
        self._documents = StateDocuments(self._cluster)
        self._records = ClusterRecords(self._cluster)
        self._ready = False

    def _docs(self) -> StateDocuments:
        """The catalog's documents. The first call checks the server and installs templates and the catalog index."""
        if not self._ready:
            self._cluster.check_version()
            install_templates(self._cluster)
            self._documents.ensure()
            self._ready = True
        return self._documents

    def names(self) -> list[str]:
        return [path.split("/")[0] for path in self._docs().paths("") if path.endswith("/collection")]

    def stored(self) -> list[str]:
        paths = self._docs().paths("")
        return sorted({path.split("/")[0] for path in paths if "/generations/" in path})

    def read(self, name: str, key: str) -> Json | None:
        found = self._docs().get(f"{name}/{key}")
        return None if found is None else found.value

    def write(self, name: str, key: str, value: Json) -> None:
        self._docs().put(f"{name}/{key}", value)

    def remove(self, name: str, key: str) -> None:
        self._docs().remove(f"{name}/{key}")

    def generations(self, name: str) -> list[str]:
        return sorted({path.split("/")[2] for path in self._docs().paths(f"{name}/generations/")})

    def profiles(self, name: str) -> list[int]:
        return sorted(int(path.rsplit("/", 1)[1]) for path in self._docs().paths(f"{name}/profiles/"))

    def drop(self, name: str, generation: str | None = None) -> None:
        """Delete a generation, or the whole collection if none is named.

        The documents go first, so that no process opens data that is being deleted, then the indexes and files.
        """
        generations = [generation] if generation else self.generations(name)
        prefix = f"{name}/generations/{generation}/" if generation else f"{name}/"
        paths = self._docs().paths(prefix)
        self._documents.remove(*sorted(paths, key=_order_of_removal))
        for item in generations:
            names = Names.of(self._cluster.prefix, name, item)
            self._cluster.delete_index(names.passages)
            self._cluster.delete_index(names.documents)
            shutil.rmtree(self._folder(name, item), ignore_errors=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        path = f"{_LOCKS}{name}"
        if self._docs().get(path) is None:
            try:
                self._documents.put(path, FREE, new=True)
            except ConflictError:
                log.debug("another process has made the lock of %s", name)
        opensearch = self._settings.opensearch
        lease = Lease(
            self._documents, path, lease_s=opensearch.writer_lease_s, wait_s=self._settings.ingest.writer_wait_s
        )
        with lease.held():
            yield

    def moment(self, name: str, generation: str) -> AbstractContextManager[None]:
        folder = f"{name}/generations/{generation}"
        return self._docs().looked_up([f"{name}/current", f"{folder}/state", f"{folder}/profile"])

    def published(self, name: str, generation: str) -> None:
        """Point the alias `<prefix>-current-<collection>` to the current generation's passages, for other tools."""
        alias = f"{self._cluster.prefix}-current-{name}"
        body = {
            "actions": [
                {"remove": {"index": f"{self._cluster.prefix}-passages-*", "alias": alias, "must_exist": False}},
                {"add": {"index": Names.of(self._cluster.prefix, name, generation).passages, "alias": alias}},
            ]
        }
        try:
            self._cluster.call(lambda: self._cluster.client.indices.update_aliases(body=body))
        except HyblinkError as error:
            log.warning("the alias %s was not moved: %s", alias, error)

    def _folder(self, name: str, generation: str) -> Path:
        return self._settings.data_dir / "opensearch" / self._cluster.prefix / name / generation

    def records(self) -> ClusterRecords:
        return self._records

    def open(self, record: GenerationRecord) -> OpenSearchEngine:
        name, generation = record.collection, record.id
        names = Names.of(self._cluster.prefix, name, generation)
        path = f"{name}/generations/{generation}/state"
        state = self._docs().get(path)
        if state is None:
            if self.read(name, f"generations/{generation}/generation") is not None:
                raise CorruptionError("the state of a generation's store is missing", received=path)
            self._make(record, names)
            try:
                state = self._documents.put(path, new_state(secrets.token_hex(8)), new=True)
            except ConflictError:  # another process was faster
                state = self._documents.get_many([path])[path]
        assert state is not None
        uid = state.value["uid"]
        folder = self._folder(name, generation)
        for other in folder.glob("*"):
            if other.name != uid:  # an index derived from a deleted generation of the same name
                shutil.rmtree(other, ignore_errors=True)
        store = OpenSearchStore(
            self._cluster,
            self._documents,
            path,
            names,
            writer_wait_s=self._settings.ingest.writer_wait_s,
            knn=record.dense_index == KNN,
        )
        return OpenSearchEngine(self._cluster, store, uid, record, folder / uid, self._settings)

    def _make(self, record: GenerationRecord, names: Names) -> None:
        """Create the two empty indexes of a generation from the templates, with the aliases of the first writer."""
        opensearch = self._settings.opensearch
        settings: Json = {"number_of_shards": opensearch.shards, "number_of_replicas": opensearch.replicas}
        meta = {
            "generation": record.id,
            "collection": record.collection,
            "dense_encoder": record.dense_encoder,
            "vdr_encoder": record.vdr_encoder,
        }
        content = {
            "type": "text",
            "analyzer": f"hyblink_{record.analyzer}",
            "similarity": "hyblink_bm25",
            "index_options": "freqs",
        }
        written = names.written(FREE["term"])
        fields: Json = {"content": content}
        if record.dense_index == KNN and record.dense_dimension:
            check_knn(self._cluster)
            fields[KNN] = knn_field(record.dense_dimension, opensearch.knn_engine)
            settings["knn"] = True
        for index, alias, properties in (
            (names.passages, written.passages, fields),
            (names.documents, written.documents, {}),
        ):
            self._cluster.delete_index(index)  # remains of a creation that crashed; they were never visible
            body = {
                "settings": settings,
                "mappings": {"_meta": meta, "properties": properties},
                "aliases": {alias: {}},
            }
            # The index was just deleted. If it exists already, a retry of this same call has created it.
            self._cluster.create_index(index, body)

    def close(self) -> None:
        """Close the connections."""
        self._cluster.close()
