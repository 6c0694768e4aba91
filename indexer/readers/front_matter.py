"""Splits the front matter from the text of notes and pages: YAML between `---` lines, TOML between `+++` lines."""

from __future__ import annotations

import datetime as dt
from typing import Any

_LONGEST_CHARS = 200_000
_FENCES = {"---": ("---", "..."), "+++": ("+++",)}


def split_front_matter(source: str) -> tuple[dict[str, Any], str]:
    """(fields, rest of the text). Without front matter, or with one that cannot be parsed: no fields, the whole text.

    >>> split_front_matter("---\\ntitle: Garden\\n---\\nText")
    ({'title': 'Garden'}, 'Text')
    """
    first, _, _ = source.partition("\n")
    ends = _FENCES.get(first.rstrip())
    if ends is None:
        return {}, source
    at = len(first) + 1
    while at < min(len(source), _LONGEST_CHARS):
        end = source.find("\n", at)
        end = len(source) if end < 0 else end
        if source[at:end].rstrip() in ends:
            found = _parsed(source[len(first) + 1 : at], first.rstrip())
            return (found, source[end + 1 :]) if found is not None else ({}, source)
        at = end + 1
    return {}, source


def _parsed(inner: str, fence: str) -> dict[str, Any] | None:
    if fence == "+++":
        import tomllib

        try:
            return {key: plain_value(value) for key, value in tomllib.loads(inner).items()}
        except tomllib.TOMLDecodeError:
            return None
    found = safe_yaml(inner)
    return {str(key): plain_value(value) for key, value in found.items()} if isinstance(found, dict) else None


def safe_yaml(source: str) -> Any:
    """The value of a YAML text, or None if it is broken, or if its aliases would make it grow beyond bounds."""
    import yaml

    if source.count("*") > 1000:  # each alias may repeat what is long already
        return None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(source, Loader=loader)  # noqa: S506  # one of the two safe loaders
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return None


def plain_value(value: Any, depth: int = 0) -> Any:
    """A value of YAML or TOML as JSON has it: dates in ISO form, keys as text."""
    if isinstance(value, dict) and depth < 8:
        return {str(key): plain_value(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set) and depth < 8:
        return [plain_value(inner, depth + 1) for inner in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
