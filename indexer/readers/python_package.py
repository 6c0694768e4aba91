"""Reads the documentation of installed Python packages from their sources, without importing them.

Modules, classes, functions and methods that have a docstring become documents: title = qualified name, text =
signature and docstring. The name `python` stands for the standard library. It also includes the language reference
that Python ships (`pydoc_data.topics`) and the functions written in C, which have no Python source and are read with
`inspect`. Only for these are modules imported, and only the standard-library modules listed here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import InvalidInputError, NotFoundError, UserError
from hyblink.app.core.types.documents import Document
from hyblink.indexer.ingest.prepare import parse_document
from hyblink.indexer.readers.item import SourceItem

STANDARD_LIBRARY = "python"
_SKIPPED_PARTS = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "distutils",
    "site-packages",
    "turtledemo",
    "__pycache__",
    "pydoc_data",
}
_C_MODULES = (
    "builtins", "array", "atexit", "binascii", "bisect", "cmath", "collections", "contextvars", "csv", "datetime",
    "decimal", "errno", "fcntl", "functools", "gc", "grp", "hashlib", "heapq", "io", "itertools", "marshal", "math",
    "mmap", "operator", "os", "pickle", "pwd", "queue", "random", "re", "resource", "select", "signal", "socket",
    "sqlite3", "struct", "sys", "syslog", "termios", "time", "tracemalloc", "types", "unicodedata", "weakref", "zlib",
)  # fmt: skip
_MAX_SOURCE_BYTES = 8 * 2**20
_DISTRIBUTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One documented object."""

    name: str
    kind: str
    module: str
    doc: str
    signature: str = ""
    line: int = 0


class PythonSource:
    """Documents of an installed package or module, given its import name; `python` is the standard library."""

    is_beir = False

    def __init__(
        self, name: str, *, max_chars: int = 8_000_000, undocumented: bool = False, source_id: str | None = None
    ) -> None:
        """With `undocumented`, objects without a docstring are included. Their text is their signature or name.

        Raises InvalidInputError for a bad name, NotFoundError if the package is not installed or has no sources.
        """
        if not _DISTRIBUTION_NAME.fullmatch(name):
            raise InvalidInputError("bad package name", received=name, expected="an import name such as json")
        self._name = name
        self._id = source_id or f"python:{name}:{sys.version_info.major}.{sys.version_info.minor}"
        self._max_chars = max_chars
        self._undocumented = undocumented
        if name != STANDARD_LIBRARY and not self._roots():
            raise NotFoundError(
                "no such installed package", received=name, expected="an importable package with sources"
            )

    @property
    def id(self) -> str:
        """The key under which the store keeps the read position, so that a later run resumes."""
        return self._id

    def _roots(self) -> list[tuple[str, Path]]:
        """(module name, file or folder) of the package, found without importing its parent packages."""
        folders: list[str] | None = None
        parts = self._name.split(".")
        for depth, part in enumerate(parts):
            spec = PathFinder.find_spec(part, folders)
            if spec is None:
                return []
            if depth < len(parts) - 1:
                folders = list(spec.submodule_search_locations or [])
                continue
            places = [Path(p) for p in spec.submodule_search_locations or []]
            if not places and spec.origin and spec.origin.endswith(".py"):
                places = [Path(spec.origin)]
            return [(self._name, place) for place in places]
        return []

    def items(self, after: str | None = None) -> Iterator[SourceItem]:
        """Yield every document, or only those after the position `after`. A repeated qualified name is yielded once."""
        skip = int(after) if after else 0
        seen: set[str] = set()
        number = 0
        for file, entry in self._entries():
            if entry.name in seen:
                continue
            seen.add(entry.name)
            number += 1
            if number <= skip:
                continue
            try:
                document = self._document(entry)
                yield SourceItem(file, entry.line, str(number), document=document)
            except UserError as error:
                yield SourceItem(file, entry.line, str(number), error=error, raw=entry.name)

    def _document(self, entry: _Entry) -> Document:
        package = entry.module.split(".")[0]
        text = f"{entry.signature}\n\n{entry.doc}" if entry.signature else entry.doc
        metadata: dict[str, Any] = {
            "package": STANDARD_LIBRARY if self._name == STANDARD_LIBRARY else package,
            "module": entry.module,
            "kind": entry.kind,
            "name": entry.name.rsplit(".", 1)[-1],
        }
        if entry.line:
            metadata["line"] = entry.line
        row = {
            "id": f"{metadata['package']}:{entry.name}",
            "title": entry.name,
            "text": text.replace("\x00", " "),
            "lang": "en",
            "metadata": metadata,
        }
        return parse_document(row, self._max_chars)

    def _entries(self) -> Iterator[tuple[str, _Entry]]:
        if self._name == STANDARD_LIBRARY:
            root = Path(sysconfig.get_paths()["stdlib"])
            for path in sorted(root.iterdir()):
                if path.name in _SKIPPED_PARTS or path.name.startswith("_"):
                    continue
                if path.suffix == ".py" or (path / "__init__.py").exists():
                    yield from self._walk(path.stem, path)
            yield from _topics()
            yield from _c_entries()
            return
        for module, place in self._roots():
            yield from self._walk(module, place)

    def _walk(self, module: str, path: Path) -> Iterator[tuple[str, _Entry]]:
        if path.is_file():
            yield from _module_entries(module, path, self._undocumented)
            return
        if (path / "__init__.py").exists():
            yield from _module_entries(module, path / "__init__.py", self._undocumented)
        for child in sorted(path.iterdir()):
            name = child.stem
            if child.name in _SKIPPED_PARTS or not name.isidentifier() or name.startswith("_"):
                continue
            if child.is_dir() and any(child.glob("*.py")):
                yield from self._walk(f"{module}.{name}", child)
            elif child.suffix == ".py":
                yield from _module_entries(f"{module}.{name}", child, self._undocumented)


def _module_entries(module: str, path: Path, undocumented: bool) -> Iterator[tuple[str, _Entry]]:
    """Yield (file name, entry) for every documented object of one source file.

    A file that cannot be parsed yields nothing and raises nothing: installed packages contain templates and files for
    other Python versions.
    """
    if path.stat().st_size > _MAX_SOURCE_BYTES:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    doc = ast.get_docstring(tree)
    if doc or undocumented:
        yield path.name, _Entry(module, "module", module, doc or f"The module {module}.", line=1)
    for entry in _members(tree.body, module, module, undocumented):
        yield path.name, entry


def _members(body: list[ast.stmt], prefix: str, module: str, undocumented: bool) -> Iterator[_Entry]:
    in_class = prefix != module
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            # Definitions guarded by version or platform checks count as well.
            yield from _members(node.body, prefix, module, undocumented)
            yield from _members(node.orelse, prefix, module, undocumented)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_") and not (node.name.startswith("__") and node.name.endswith("__")):
                continue
            name = f"{prefix}.{node.name}"
            doc = ast.get_docstring(node) or ("" if undocumented else None)
            if isinstance(node, ast.ClassDef):
                if doc is not None:
                    bases = ", ".join(ast.unparse(base) for base in node.bases)
                    signature = f"class {node.name}({bases})" if bases else f"class {node.name}"
                    yield _Entry(name, "class", module, doc, signature, node.lineno)
                yield from _members(node.body, name, module, undocumented)
            elif doc is not None:
                decorators = {ast.unparse(item) for item in node.decorator_list}
                kind = "method" if in_class else "function"
                if decorators & {"property", "cached_property", "functools.cached_property"}:
                    kind = "property"
                yield _Entry(name, kind, module, doc, _signature(node, kind), node.lineno)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, kind: str) -> str:
    if kind == "property":
        return node.name
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    word = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{word}{node.name}({ast.unparse(node.args)}){returns}"


def _topics() -> Iterator[tuple[str, _Entry]]:
    """Yield the topics of the language reference. They are long documents."""
    from pydoc_data.topics import topics

    for key, text in sorted(topics.items()):
        lines = [line for line in text.splitlines() if line.strip()]
        heading = lines[0].strip().strip("*") if lines else key
        yield "pydoc_data/topics.py", _Entry(f"{heading} [{key}]", "topic", "language reference", text)


def _c_entries() -> Iterator[tuple[str, _Entry]]:
    """Yield the public functions, types and methods of the standard library that are written in C."""
    for module_name in _C_MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # not on this platform
        if not (getattr(module, "__file__", None) or "").endswith(".py") and module.__doc__:
            yield module_name, _Entry(module_name, "module", module_name, inspect.cleandoc(module.__doc__))
        for name, member in sorted(vars(module).items()):
            if name.startswith("_"):
                continue
            label = name if module_name == "builtins" else f"{module_name}.{name}"
            if inspect.isclass(member):
                if _is_c(member):
                    yield from _c_class(label, module_name, member)
            elif inspect.isbuiltin(member) or inspect.ismethoddescriptor(member):
                yield from _c_callable(label, module_name, member, "function")


def _is_c(kind: type) -> bool:
    return not kind.__flags__ & (1 << 9)  # Py_TPFLAGS_HEAPTYPE: made by a class statement (or a C heap type)


def _c_class(label: str, module: str, kind: type) -> Iterator[tuple[str, _Entry]]:
    if isinstance(kind.__doc__, str):
        yield module, _Entry(label, "class", module, inspect.cleandoc(kind.__doc__), f"class {kind.__name__}")
    for name, member in sorted(vars(kind).items()):
        if not name.startswith("_"):
            yield from _c_callable(f"{label}.{name}", module, member, "method")


def _c_callable(label: str, module: str, member: Any, kind: str) -> Iterator[tuple[str, _Entry]]:
    doc = getattr(member, "__doc__", None)
    if not isinstance(doc, str) or not doc.strip():
        return
    signature = ""
    if callable(member):
        try:
            signature = f"{label.rsplit('.', 1)[-1]}{inspect.signature(member)}"
        except (ValueError, TypeError):
            signature = ""
    elif kind == "method":
        kind = "property"
    yield module, _Entry(label, kind, module, inspect.cleandoc(doc), signature)
