"""Safety checks of untrusted model folders, made before any library opens their files."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson

from hyblink.app.core.errors import EncoderUnavailableError

log = logging.getLogger(__name__)
_UNSAFE = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".msgpack", ".py", ".pyc", ".so", ".dll"}
)
_CONFIGS = frozenset(
    {"modules.json", "router_config.json", "config.json", "tokenizer_config.json", "config_sentence_transformers.json"}
)
_CLASSES = ("sentence_transformers.", "hyblink.app.encoders.vdr.head.", "app.encoders.vdr.VdrHead")
"""The allowed class names or prefixes. The last one is the VDR head's name in model folders of earlier releases."""
_MAX_CONFIG = 8 * 2**20


def refuse_unsafe(folder: Path) -> None:
    """Refuse a model folder with code, pickles, links that lead out of it, or configurations that load unknown classes.

    Only JSON files are opened. Raises EncoderUnavailableError naming the file.
    """
    inside = folder.resolve()

    def refuse(what: str, path: Path, expected: str) -> EncoderUnavailableError:
        log.error("model folder %s refused: %s: %s", folder.name, what, path.name)
        return EncoderUnavailableError(
            f"the model folder {folder.name!r} {what}", received=str(path.relative_to(folder)), expected=expected
        )

    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise refuse("has a link that leads out of it", path, "files of its own (copy them)")
        if path.suffix.lower() in _UNSAFE:
            raise refuse("holds code or pickles", path, "safetensors and JSON only")
        if path.name in _CONFIGS and path.is_file():
            if path.stat().st_size > _MAX_CONFIG:
                raise refuse("has a configuration that is too large", path, f"at most {_MAX_CONFIG} bytes")
            try:
                found = orjson.loads(path.read_bytes())
            except orjson.JSONDecodeError:
                raise refuse("has a configuration that is not JSON", path, "JSON") from None
            if isinstance(found, dict) and "auto_map" in found:
                raise refuse("asks for code of its own", path, "a model of the installed libraries")
            if path.name == "modules.json" and not _known_modules(found):
                raise refuse("asks for unknown classes", path, f"classes of {', '.join(_CLASSES)}")
            if path.name == "modules.json" and not all(_is_inside(path.parent, result.get("path")) for result in found):
                raise refuse("has modules elsewhere", path, "folders of its own")
            if path.name == "router_config.json" and not _known_routes(path.parent, found):
                raise refuse("asks for unknown classes or modules elsewhere", path, f"classes of {', '.join(_CLASSES)}")


def _known_modules(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(result, dict) and str(result.get("type", "")).startswith(_CLASSES) for result in found
    )


def _known_routes(folder: Path, found: object) -> bool:
    types = found.get("types") if isinstance(found, dict) else None
    return isinstance(types, dict) and all(
        str(kind).startswith(_CLASSES) and _is_inside(folder, name) for name, kind in types.items()
    )


def _is_inside(folder: Path, name: object) -> bool:
    return isinstance(name, str) and "\0" not in name and (folder / name).resolve().is_relative_to(folder.resolve())
