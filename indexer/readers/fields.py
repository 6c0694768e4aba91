"""Makes documents from rows with named fields: which field is the id, the title and the text, and what the others hold.

Names decide first, in any case and with any separators; several names for one thing are ranked, the plainest first, and
those that are not chosen stay as metadata. A row without a field of a known name gets a text from its longest texts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.filters import MAX_CLAUSES, MAX_VALUES

IDS = ("id", "_id", "docid", "documentid", "uuid", "guid", "pid", "passageid", "recordid", "rowid", "identifier")
MAYBE_IDS = ("key", "sku", "number", "no", "nr", "code", "slug", "isbn", "doi")
"""Taken as the id of a table if every sampled row has one of its own."""
TITLES = ("title", "headline", "name", "subject", "heading", "label", "caption", "displayname")
TEXTS = (
    "text", "contents", "content", "body", "passage", "fulltext", "articlebody", "article", "document", "paragraph",
    "abstract", "description", "details", "transcript", "message", "summary", "answer", "comment", "review", "note",
    "notes", "snippet", "excerpt", "segment", "sentence", "post", "reply", "utterance",
)  # fmt: skip
LANGS = ("lang", "language")
QUESTIONS, ANSWERS = ("question", "query", "prompt"), ("answer", "answers", "response", "completion")
TURNS = ("messages", "conversation", "conversations", "turns", "dialog", "dialogue")
RESERVED = ("vector", "terms")
"""Names that ready vectors and term weights will have; a field of such a name is kept under `NAME_field`."""
_LONG_CHARS = 40
"""Texts of a table's text column are at least so long on average, if no name says which it is."""
_KEY_CHARS, _VALUE_CHARS, _ID_CHARS = 100, 8000, 512
_BITS = 63
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold the id, the title, the texts (in order) and the language; "" for none.

    `guessed` says that a name or a content was taken that may mean something else.
    """

    id: str = ""
    title: str = ""
    texts: tuple[str, ...] = ()
    lang: str = ""
    guessed: bool = False
    named: frozenset[str] = field(init=False, repr=False, compare=False)
    """The fields that are no metadata, whatever they hold."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "named", frozenset((self.id, self.title, *self.texts)))

    def told(self) -> str:
        """The mapping in words, for people."""
        parts = (("id", self.id), ("title", self.title), ("text", " + ".join(self.texts)))
        told = ", ".join(f"{target} = {name}" for target, name in parts if name)
        return told if self.texts else ", ".join(filter(None, [told, "text = `column: value` lines"]))


def plain(name: str) -> str:
    """A field's name in lower case without separators, so that `Doc-ID`, `doc_id` and `docId` are one.

    >>> plain("Doc-ID"), plain("doc_id"), plain("_id")
    ('docid', 'docid', '_id')
    """
    folded = name.strip().casefold()
    return folded if folded == "_id" else "".join(char for char in folded if char.isalnum())


def choose(
    names: Sequence[str], given: Mapping[str, str], rows: Sequence[Mapping[str, Any]] = (), *, table: bool = False
) -> Fields:
    """The fields of rows with these names. `given` maps id, title, text or lang to a name, text to several with commas.

    `rows` are samples, which say whether a field can be an id and which one has long texts. In a `table` all rows have
    the same fields. Raises InvalidInputError if a given field is not there.
    """
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(plain(name), name)
    taken: dict[str, tuple[str, ...]] = {}
    for target, wanted in given.items():
        found = tuple(_named(one, names, by_plain) for one in (wanted.split(",") if target == "text" else [wanted]))
        if not all(found):
            if table:
                raise InvalidInputError(f"no such column for the {target}", received=wanted, expected=", ".join(names))
            found = tuple(filter(None, found))
        taken[target] = found
    used = {name for found in taken.values() for name in found}

    def first(known: Iterable[str]) -> str:
        found = (by_plain[one] for one in known if one in by_plain)
        return next((name for name in found if name not in used), "")

    guessed = False
    texts = taken.get("text", ())
    question = first(QUESTIONS) if "text" not in taken else ""
    answer = first(ANSWERS) if question else ""
    if not texts:
        text = answer or first(TEXTS)
        if not text and table:
            text, guessed = _longest(names, used | {first(IDS), first(TITLES)}, rows), True
        elif text and plain(text) not in {"text", "contents", "content", "body"} and not answer:
            guessed = True
        texts = (text,) if text else ()
    used |= set(texts)
    ident = (taken.get("id") or ("",))[0] or first(IDS)
    if not ident and table:
        ident = next((name for name in map(by_plain.get, MAYBE_IDS) if name and _all_differ(name, rows)), "")
        guessed = guessed or bool(ident)
    used.add(ident)
    title = (taken.get("title") or ("",))[0] or (question if answer else "") or first(TITLES)
    guessed = guessed or (bool(title) and table and plain(title) != "title" and "title" not in given)
    return Fields(ident, title, texts, (taken.get("lang") or ("",))[0] or first(LANGS), guessed)


def _named(wanted: str, names: Sequence[str], by_plain: Mapping[str, str]) -> str:
    wanted = wanted.strip()
    return wanted if wanted in names else by_plain.get(plain(wanted), "")


def _longest(names: Sequence[str], but: set[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The field whose texts are longest on average, if they are long; else ""."""
    lengths = {
        name: sum(len(str(row.get(name) or "")) for row in rows) / len(rows)
        for name in names
        if rows and name not in but
    }
    best = max(lengths, key=lambda name: lengths[name], default="")
    return best if best and lengths[best] >= _LONG_CHARS else ""


def _all_differ(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    values = [str(row.get(name) or "").strip() for row in rows]
    return bool(values) and all(values) and len(set(values)) == len(values)


def document(row: Mapping[str, Any], fields: Fields, default_id: str, note: Note) -> dict[str, Any]:
    """id, title, text, lang and metadata of a row, as `parse_document` takes them. Nothing of the row is lost unsaid.

    `note` is told, in words without the row's values, what could not be kept as it was.
    """
    named = fields.named
    rest = {key: value for key, value in row.items() if key not in named}
    inner = rest.pop("metadata", None)
    ident = _as_id(row.get(fields.id)) if fields.id else ""
    title = _as_text(row.get(fields.title)) if fields.title else ""
    texts = [text for name in fields.texts if (text := _as_text(row.get(name)))]
    lang = rest.pop(fields.lang, None) if fields.lang else None
    if not texts:
        turns = next((key for key in rest if plain(key) in TURNS and isinstance(rest[key], list)), "")
        if turns:
            texts = [_turns(rest.pop(turns))]
    if isinstance(inner, Mapping):
        rest.update(inner)
    elif inner is not None:
        rest["metadata"] = inner
    if not texts and not title:
        texts = ["\n".join(_lines(rest))]
    if isinstance(lang, str) and len(lang) <= 35:
        known = {"lang": lang}
    else:
        known = {"lang": ""}
        if lang is not None:
            rest[fields.lang] = lang
    if len(title) > 4096:
        note("titles over 4,096 characters are cut; the whole title stands in the text")
        texts, title = [title, *texts], title[:4096]
    return {
        **known,
        "id": ident or default_id,
        "title": title,
        "text": "\n\n".join(texts),
        "metadata": metadata(rest, note),
    }


def _as_id(value: Any) -> str:
    """An id as text: numbers as they are written, MongoDB's `{"$oid": …}` by its value; "" if it can be none."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def _as_text(value: Any) -> str:
    """A text: lists of texts as paragraphs, numbers as they are written, objects as `key: value` lines."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "\n".join(_lines(value))
    if isinstance(value, list):
        return "\n\n".join(filter(None, map(_as_text, value)))
    return _scalar(value)


def _turns(turns: list[Any]) -> str:
    """A conversation: a paragraph for each message, with who said it."""
    said = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            said.append(_as_text(turn))
            continue
        who = next((str(turn[key]) for key in ("role", "from", "speaker", "author", "user") if turn.get(key)), "")
        what = next((turn[key] for key in ("content", "value", "text", "message") if turn.get(key)), "")
        said.append(f"{who}: {_as_text(what)}" if who else _as_text(what or turn))
    return "\n\n".join(filter(None, said))


def _scalar(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _lines(value: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key: value` lines of an object, nested keys with dots."""
    found = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            found += _lines(inner, f"{name}.")
        elif isinstance(inner, list):
            for one in inner:
                found += _lines(one, f"{name}.") if isinstance(one, Mapping) else [f"{name}: {_as_text(one)}"]
        elif inner is not None and inner != "":
            found.append(f"{name}: {_scalar(inner)}")
    return found


def metadata(row: Mapping[str, Any], note: Note) -> dict[str, Any]:
    """Fields as metadata: nested ones with dots, nulls and empty lists left out, what cannot be a value as text."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        kind = type(value)
        if (
            (kind is str and 0 < len(value) <= _VALUE_CHARS and not value.isspace())
            or kind is float
            or kind is bool
            or (kind is int and value.bit_length() <= _BITS)
        ) and _is_plain_key(key):
            found[key] = value
        elif value is not None and value != "":
            break
    else:
        if len(found) <= MAX_CLAUSES:
            return found  # as most rows are
    found = {}
    for key, value in _flat(row, "", 0):
        kept = _value(value, note)
        if kept is None:
            continue
        name = _key(key, found, note)
        if len(found) >= MAX_CLAUSES:
            note(f"fields beyond the first {MAX_CLAUSES} of a row are left out")
            break
        found[name] = kept
    return found


def _flat(row: Mapping[str, Any], prefix: str, depth: int) -> Iterable[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth < 8:
            yield from _flat(value, f"{name}.", depth + 1)
        else:
            yield name, value


@functools.lru_cache(maxsize=10_000)
def _is_plain_key(key: str) -> bool:
    return key.isprintable() and key == key.strip() and 0 < len(key) <= _KEY_CHARS and key not in RESERVED


def _key(key: str, taken: Mapping[str, Any], note: Note) -> str:
    name = "".join(char if char.isprintable() else " " for char in key).strip()[:_KEY_CHARS] or "field"
    if name in RESERVED:
        note(f"the field {name!r} is kept as {name + '_field'!r}: the name is reserved")
        name += "_field"
    number, free = 2, name
    while free in taken:
        free, number = f"{name[: _KEY_CHARS - 8]}_{number}", number + 1
    return free


def _value(value: Any, note: Note) -> Any:
    if isinstance(value, Mapping | list):
        if isinstance(value, Mapping):
            return _short(json.dumps(value, ensure_ascii=False, default=str), note)
        items = [_item(one) for one in value if one is not None]
        if len(items) > MAX_VALUES or sum(map(len, items)) > 8 * _VALUE_CHARS:
            note("lists that are too long for a field are left out")
            return None
        return items or None
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() > _BITS:
        return str(value)
    if isinstance(value, str):
        return _short(value, note) if value.strip() else None
    return value


def _item(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, Mapping | list) else _scalar(value)


def _short(value: str, note: Note) -> str:
    if len(value) > _VALUE_CHARS:
        note(f"field values are cut after {_VALUE_CHARS:,} characters")
    return value[:_VALUE_CHARS]
