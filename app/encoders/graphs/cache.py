"""Built graphs on disk, named by the digest of all that they are made of.

A folder holds `NAME.onnx`, its description `NAME.json` with checksums, and `words-DIGEST.bin`: tables of word vectors,
which graphs of the same base share. They are mapped into memory, not read. A damaged file is found when it is opened,
and made again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hyblink.app.core.errors import CorruptionError, EncoderUnavailableError
from hyblink.app.core.manifest import read_json, sha256, write_atomic, write_json
from hyblink.app.encoders.graphs.parts import Floats
from hyblink.app.encoders.graphs.precision import GraphOutput, GraphPrecision
from hyblink.app.encoders.graphs.weights import Source, encoder_of

FORMAT = 2
"""The version of built graphs. Those of another version are made again."""
_WORDS = "words"
_INLINE = 2**20
"""Smaller tables of word vectors stay in the graph."""
log = logging.getLogger(__name__)


def default_cache() -> Path:
    """The user's folder for built graphs: `hyblink/graphs` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "hyblink" / "graphs"
    except RuntimeError:  # no home folder
        return Path(".hyblink-graphs")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class OpenGraph:
    """An open graph."""

    session: Any
    """The `onnxruntime.InferenceSession`. Several threads may run it."""
    hidden: int
    """The number of dimensions of token states."""
    longest: int
    """The largest number of tokens of a row, special tokens included."""
    source: Source
    folder: Path

    def words(self) -> Floats:
        """The model's word vectors, shape (V, E), mapped into memory from the cache if they are there."""
        told = self.session.get_modelmeta().custom_metadata_map
        path = self.folder / told.get("words", "-")
        if not path.is_file():
            return encoder_of(self.source).embeddings.words
        return np.memmap(path, dtype=np.float32, mode="r").reshape(-1, int(told["words_width"]))


class GraphCache:
    """Opens graphs: from memory if this process has them open, else from disk, else built now. Thread-safe.

    If the folder cannot be written, graphs are built in memory, each time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: weakref.WeakValueDictionary[str, OpenGraph] = weakref.WeakValueDictionary()
        self._checked: dict[Path, tuple[tuple[int, ...], str]] = {}

    def open(self, source: Source, precision: GraphPrecision, output: GraphOutput) -> OpenGraph:
        """The open graph of a model, shared by all who ask for the same.

        Raises UnknownGraphError if no graph can be built, EncoderUnavailableError if the model cannot be read.
        """
        with self._lock:
            name = self._name(source, precision, output)
            found = self._open.get(name)
            if found is None:
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    session = self._from_disk(name, source, precision, output)
                except OSError as error:
                    log.warning("graphs are not kept: %s cannot be written (%s)", self._folder, error)
                    session = _session(_built(source, precision, output)[0])
                told = session.get_modelmeta().custom_metadata_map
                found = OpenGraph(session, int(told["hidden"]), int(told["longest"]), source, self._folder)
                self._open[name] = found
            return found

    def _name(self, source: Source, precision: GraphPrecision, output: GraphOutput) -> str:
        parts = [FORMAT, precision, output, source.layers, *(self._digest(path) for path in source.files())]
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:24]

    def _digest(self, path: Path) -> str:
        """The file's sha256, remembered on disk for as long as its size and time stay the same."""
        try:
            seen = path.stat()
        except OSError as error:
            raise EncoderUnavailableError(f"cannot read {path.parent.name}/{path.name}: {error}") from error
        key = orjson.dumps([str(path.resolve()), seen.st_size, seen.st_mtime_ns, seen.st_ino])
        known = self._folder / f"digest-{hashlib.sha256(key).hexdigest()[:24]}"
        try:
            digest = known.read_text(encoding="ascii")
            if len(digest) == 64:
                return digest
        except (OSError, ValueError):
            pass
        digest = sha256(path)
        try:
            write_atomic(known, digest.encode())
        except OSError as error:
            log.debug("the digest of %s is not kept: %s", path, error)
        return digest

    def _from_disk(self, name: str, source: Source, precision: GraphPrecision, output: GraphOutput) -> Any:
        from filelock import FileLock

        path, told = self._folder / f"{name}.onnx", self._folder / f"{name}.json"
        with FileLock(self._folder / ".lock"):
            if told.exists() and not self._whole(told):
                log.warning("the built graph %s is damaged and is made again", name)
                told.unlink(missing_ok=True)
            if not told.exists():
                self._build(path, told, source, precision, output)
            try:
                return _session(str(path))
            except Exception as error:  # noqa: BLE001  # exceptions of onnxruntime have no common base
                log.warning("the built graph %s does not open and is made again: %s", name, error)
                self._checked.clear()
                self._build(path, told, source, precision, output)
                return _session(str(path))

    def _whole(self, told: Path) -> bool:
        """Whether all files that a description lists are there and as they were written."""
        try:
            return all(
                self._check(self._folder / Path(name).name) == digest for name, digest in read_json(told).items()
            )
        except (OSError, CorruptionError, AttributeError):
            return False

    def _check(self, path: Path) -> str:
        """The file's digest. Word tables, which several graphs share, are read again only if they have changed."""
        stat = path.stat()
        seen = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        known = self._checked.get(path)
        if known is None or known[0] != seen or path.suffix != ".bin":
            known = self._checked[path] = seen, sha256(path)
        return known[1]

    def _build(self, path: Path, told: Path, source: Source, precision: GraphPrecision, output: GraphOutput) -> None:
        log.info("building the %s graph of %s", precision, source.folder.name)
        model, table = _built(source, precision, output, inline=False)
        files = [path]
        if table is not None:
            words = self._folder / _table_name(table)
            if not words.is_file() or self._check(words) != _digest_of(table):
                write_atomic(words, table.tobytes())
            files.append(words)
        write_atomic(path, model)
        write_json(told, {file.name: self._check(file) for file in files})


def _table_name(table: Floats) -> str:
    return f"words-{_digest_of(table)[:24]}.bin"


def _digest_of(table: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(table).data).hexdigest()


def _built(
    source: Source, precision: GraphPrecision, output: GraphOutput, *, inline: bool = True
) -> tuple[bytes, Floats | None]:
    """(the serialised graph, its table of word vectors if that is to lie in a file of its own)."""
    from onnx import TensorProto

    from hyblink.app.encoders.graphs.build import graph

    made = encoder_of(source)
    model = graph(made, precision, output)
    table = np.ascontiguousarray(made.embeddings.words)
    told: dict[str, int | str] = {"hidden": made.hidden, "longest": made.longest}
    if not inline and table.nbytes >= _INLINE:
        told |= {"words": _table_name(table), "words_width": table.shape[1]}
    for key, value in told.items():
        note = model.metadata_props.add()
        note.key, note.value = key, str(value)
    if inline or table.nbytes < _INLINE:
        return model.SerializeToString(), None
    kept = [item for item in model.graph.initializer if item.name == _WORDS]
    for item in kept:
        model.graph.initializer.remove(item)
    outside = TensorProto(
        name=_WORDS, data_type=TensorProto.FLOAT, dims=table.shape, data_location=TensorProto.EXTERNAL
    )
    for key, where in (("location", _table_name(table)), ("offset", "0"), ("length", str(table.nbytes))):
        entry = outside.external_data.add()
        entry.key, entry.value = key, where
    model.graph.initializer.append(outside)
    return model.SerializeToString(), table


def _session(model: str | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    # A spinning thread takes a CPU from the other models of this process and from whatever else runs here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def threads() -> int:
    """The number of threads of a session: the CPUs that this process may use, or fewer if OMP_NUM_THREADS says so."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(mine, int(told)) if told.isdigit() and int(told) else mine
