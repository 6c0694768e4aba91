"""Files with the dense vectors of a knowledge base, which a mention encoder is trained against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.loading.models import identity, is_dense


def write_vectors(engine: Engine, path: Path) -> int:
    """Write ids and float16 vectors of all encoded entities to a safetensors file; returns how many.

    The vector of an entity is that of its first passage. Raises InvalidInputError if no entity is encoded.
    """
    from safetensors.numpy import save_file

    reader = engine.store.reader()
    rows = reader.live_rows(encoded=True)
    keys = reader.document_keys(rows)
    _, first = np.unique(keys, return_index=True)
    rows, keys = rows[first], keys[first]
    if not len(rows):
        raise InvalidInputError("no entity has a vector yet", received=0, expected="an encoded knowledge base")
    vectors = np.empty((len(rows), engine.record.dense_dimension), dtype=np.float16)
    for at in range(0, len(rows), 10_000):
        found, values = reader.vectors(rows[at : at + 10_000])
        vectors[at + np.searchsorted(rows[at : at + 10_000], found)] = values
    beside = path.with_name(f".{path.name}.tmp")
    save_file(
        {"vectors": vectors},
        str(beside),
        {"ids": orjson.dumps(reader.doc_ids(keys)).decode(), "encoder": engine.record.dense_encoder},
    )
    beside.replace(path)
    return len(rows)


def _read(path: Path) -> tuple[str, list[str], VectorArray]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise NotFoundError("no such file of entity vectors", received=str(path))
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            vectors: VectorArray = file.get_tensor("vectors")
    except (SafetensorError, OSError) as error:
        raise InvalidInputError(f"not a file of entity vectors: {error}", received=str(path)) from error
    ids = [str(item) for item in orjson.loads(metadata.get("ids", "[]"))]
    if len(set(ids)) != len(vectors):
        raise InvalidInputError("the file's ids and vectors differ", received=str(path))
    return metadata.get("encoder", ""), ids, vectors


class EntityVectors:
    """Vectors by entity id, from the files of one or more knowledge bases."""

    def __init__(self, *paths: Path) -> None:
        """Read files written by `write_vectors`.

        Raises NotFoundError for a missing file, InvalidInputError for a bad file, or if the files share ids or are of
        different encoders.
        """
        read = [_read(path) for path in paths]
        encoders = sorted({encoder for encoder, _, _ in read})
        if len(encoders) != 1:
            raise InvalidInputError("files of several encoders' vectors", received=encoders, expected="one encoder's")
        self.encoder = encoders[0]
        self.ids = [item for _, ids, _ in read for item in ids]
        self._vectors = np.concatenate([vectors for _, _, vectors in read])
        self._place = {item: at for at, item in enumerate(self.ids)}
        if len(self._place) != len(self.ids):
            twice = [item for at, item in enumerate(self.ids) if self._place[item] != at]
            raise InvalidInputError("several files have a vector of the same id", received=twice[:5])

    def check_encoder(self, base: str) -> None:
        """Raises InvalidInputError if the vectors are not from the model `base`."""
        if not is_dense(self.encoder, base):
            raise InvalidInputError(
                "the entities' vectors are another encoder's", received=self.encoder, expected=identity(base)
            )

    @property
    def dimension(self) -> int:
        """The dimension D of the vectors."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, entity_id: str) -> bool:
        return entity_id in self._place

    def get(self, ids: list[str]) -> VectorArray:
        """The vectors of `ids`, shape (n, D), float32. Raises InvalidInputError that names ids without a vector."""
        missing = [item for item in ids if item not in self._place]
        if missing:
            raise InvalidInputError(
                "entities without a vector", received=missing[:5], expected="those of the knowledge base's export"
            )
        found: VectorArray = self._vectors[[self._place[item] for item in ids]].astype(np.float32)
        return found
