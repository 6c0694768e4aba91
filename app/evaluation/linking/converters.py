"""Read judged mentions from the common entity-linking formats (AIDA-CoNLL, NIF, Zeshel, ELQ) and from texts with
hand-marked mentions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.app.core.types.linking import MentionContext
from hyblink.app.evaluation.json_lines import full_lines
from hyblink.app.evaluation.linking.mentions import JudgedMention, label_of
from hyblink.indexer.readers.rows import decode, read_bounded

_MAX_BYTES = 2**31
_CLOSING = re.compile(r"[.,;:!?)\]}%]|'s?|n't|''")
_MARKED = re.compile(r"\[\[([^\[\]|]+)\|([^\[\]|]*)\]\]")
_OPENING = {"(", "[", "{", "``", "$"}


def joined_tokens(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join tokens to a text with natural spacing; return it with the (start, end) of each token.

    >>> joined_tokens(["EU", "rejects", "(", "it", ")", "."])
    ('EU rejects (it).', [(0, 2), (3, 10), (11, 12), (12, 14), (14, 15), (15, 16)])
    """
    text, spans = "", []
    for at, token in enumerate(tokens):
        if at and not _CLOSING.fullmatch(token) and tokens[at - 1] not in _OPENING:
            text += " "
        spans.append((len(text), len(text) + len(token)))
        text += token
    return text, spans


def _row(name: str, text: str, start: int, end: int, entity: str, world: str) -> JudgedMention:
    context = MentionContext(text[:start], text[start:end], text[end:])
    return JudgedMention(name, context, label_of(entity), world, exact=True)


def aida(path: Path) -> Iterator[JudgedMention]:
    """Read AIDA-YAGO2 (Hoffart et al. 2011).

    The TSV columns are: token, B or I, mention, YAGO entity, URL, Wikipedia id, Freebase id.

    The entity is the Wikipedia id, or the YAGO name if there is none; `--NME--` is NIL. The split is taken from the
    document's name (`testa`, `testb`, else `train`), and becomes the mention's world.
    """
    for name, tokens, rows in _documents(path):
        text, spans = joined_tokens(tokens)
        world = next((part for part in ("testa", "testb") if part in name), "train")
        for first, last, entity in rows:
            yield _row(f"{name}:{first}", text, spans[first][0], spans[last][1], entity, world)


def _documents(path: Path) -> Iterator[tuple[str, list[str], list[tuple[int, int, str]]]]:
    name, tokens, mentions = "", [], []  # type: ignore[var-annotated]
    for number, raw in enumerate(decode(read_bounded(path, _MAX_BYTES)).splitlines(), 1):
        if raw.startswith("-DOCSTART-"):
            if tokens:
                yield name, tokens, mentions
            name, tokens, mentions = raw.partition("(")[2].rstrip(")") or str(number), [], []
            continue
        fields = raw.split("\t")
        if not fields[0]:
            continue
        if len(fields) not in {1, 4, 6, 7} or (len(fields) > 1 and fields[1] not in {"B", "I"}):
            raise InvalidInputError(
                f"{path.name}:{number}: not a row of AIDA", received=raw[:80], expected="1, 4 or 7 columns"
            )
        if len(fields) > 1:
            if fields[1] == "B":
                entity = fields[5] if len(fields) > 5 and fields[5].isdigit() else fields[3]
                mentions.append((len(tokens), len(tokens), entity))
            elif mentions:
                mentions[-1] = (mentions[-1][0], len(tokens), mentions[-1][2])
        tokens.append(fields[0])
    if tokens:
        yield name, tokens, mentions


def nif(path: Path) -> Iterator[JudgedMention]:
    """Read NIF 2.0 in Turtle (Hellmann et al. 2013), as GERBIL uses it. A phrase without `taIdentRef` is NIL.

    Offsets are read as code points, or as UTF-16 units if only these match the phrase's text. Raises
    InvalidInputError.
    """
    try:
        import rdflib
    except ImportError as error:
        raise InvalidInputError(
            "NIF is read by rdflib", received="it is not installed", expected="the extra train"
        ) from error

    prefix = "http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#"
    ref = rdflib.URIRef("http://www.w3.org/2005/11/its/rdf#taIdentRef")
    graph = rdflib.Graph()
    try:
        graph.parse(data=read_bounded(path, _MAX_BYTES), format="turtle")
    except Exception as error:  # the parser's own errors share no base
        raise InvalidInputError(f"not Turtle: {str(error)[:200]}", received=path.name) from error

    def value(node: Any, name: str) -> Any:
        return graph.value(node, rdflib.URIRef(prefix + name))

    found = []
    for phrase, context in graph.subject_objects(rdflib.URIRef(prefix + "referenceContext")):
        text, start, end = value(context, "isString"), value(phrase, "beginIndex"), value(phrase, "endIndex")
        if value(phrase, "anchorOf") is None or text is None or start is None or end is None:
            continue
        begin, stop, whole, anchor = int(start), int(end), str(text), str(value(phrase, "anchorOf"))
        if whole[begin:stop] != anchor:
            units = whole.encode("utf-16-le")
            as_units = units[2 * begin : 2 * stop].decode("utf-16-le", "replace")
            if as_units != anchor:
                raise InvalidInputError(
                    f"{path.name}: a phrase's text is not what stands there", received=anchor,
                    expected=whole[begin:stop],
                )  # fmt: skip
            begin = len(units[: 2 * begin].decode("utf-16-le"))
            stop = begin + len(anchor)
        entity = graph.value(phrase, ref)
        found.append(
            (str(context), begin, _row(str(phrase), whole, begin, stop, "" if entity is None else str(entity), ""))
        )
    yield from (row for _, _, row in sorted(found, key=lambda item: item[:2]))


def zeshel(folder: Path, split: str) -> Iterator[JudgedMention]:
    """Read a split of Zeshel (Logeswaran et al. 2019): `mentions/<split>.json` with contexts from
    `documents/<world>.json`. Offsets are in tokens.

    Raises NotFoundError, InvalidInputError.
    """
    path = folder / "mentions" / f"{split}.json"
    if not path.is_file():
        raise NotFoundError("no such file", received=str(path))
    worlds: dict[str, dict[str, list[str]]] = {}
    for number, line in full_lines(path):
        try:
            row = orjson.loads(line)
            world = str(row["corpus"])
            if world not in worlds:
                worlds[world] = {
                    entity["id"]: entity["description"].split(" ") for entity in zeshel_entities(folder, world)
                }
            tokens = worlds[world][str(row["context_document_id"])]
            start, end = int(row["start_index"]), int(row["end_index"]) + 1
            context = MentionContext(" ".join(tokens[:start]), " ".join(tokens[start:end]), " ".join(tokens[end:]))
            if context.mention != row.get("text", context.mention):
                raise ValueError(f"{row['text']!r} is to stand where {context.mention[:80]!r} stands")
            yield JudgedMention(str(row["mention_id"]), context, str(row["label_document_id"]), world)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{path.name}:{number}: not a mention of Zeshel ({error!r})") from error


def zeshel_entities(folder: Path, world: str) -> Iterator[dict[str, str]]:
    """Read the entities of a Zeshel world, as rows for a knowledge base. Raises NotFoundError."""
    path = folder / "documents" / f"{world}.json"
    if not path.is_file():
        raise NotFoundError("no such world", received=str(path))
    for _, line in full_lines(path):
        row = orjson.loads(line)
        yield {
            "id": str(row["document_id"]),
            "title": str(row["title"]),
            "description": str(row["text"]),
            "world": world,
        }


def elq(path: Path) -> Iterator[JudgedMention]:
    """Read ELQ's JSONL for WebQSP and GraphQuestions (Li et al. 2020).

    Rows have `id`, `text`, `mentions` ([[start, end], …]) and `wikidata_id`. Raises InvalidInputError.
    """
    for number, line in full_lines(path):
        try:
            row: Any = orjson.loads(line)
            if not isinstance(row, Mapping):
                raise TypeError("not an object; expected one on each line")
            labels = row.get("wikidata_id") or row.get("label_id") or []
            labels = labels if isinstance(labels, list) else [labels]
            text = str(row["text"])
            if len(labels) != len(row["mentions"]):
                raise ValueError(f"{len(labels)} labels for {len(row['mentions'])} mentions")
            for at, ((start, end), label) in enumerate(zip(row["mentions"], labels, strict=True)):
                if not 0 <= int(start) < int(end) <= len(text):
                    raise ValueError(f"the span [{start}, {end}] lies outside the text of {len(text)} characters")
                yield _row(f"{row.get('id', number)}:{at}", text, int(start), int(end), label_of(label), "")
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{path.name}:{number}: not a question of ELQ ({error})") from error


def marked(path: Path) -> Iterator[JudgedMention]:
    """Read hand-marked texts, one a line, with mentions written as `[[mention|entity id]]`.

    An empty id is NIL. Lines that begin with `#` are comments. Raises InvalidInputError.
    """
    for number, line in enumerate(decode(read_bounded(path, _MAX_BYTES)).splitlines(), 1):
        if line.startswith("#"):
            continue
        text, spans = "", []
        at = 0
        for found in _MARKED.finditer(line):
            text += line[at : found.start()]
            spans.append((len(text), len(text) + len(found.group(1)), found.group(2).strip()))
            text += found.group(1)
            at = found.end()
        text += line[at:]
        if "[[" in text or "]]" in text:
            raise InvalidInputError(
                f"{path.name}:{number}: brackets that mark no mention",
                received=line[:80],
                expected="[[mention|entity]]",
            )
        for start, end, entity in spans:
            yield _row(f"{number}:{start}", text, start, end, entity, "")


CONVERTERS: Mapping[str, Callable[[Path], Iterator[JudgedMention]]] = {
    "aida": aida,
    "nif": nif,
    "elq": elq,
    "marked": marked,
}
"""The readers of single files by format name. `zeshel` is not among them: it reads a folder and a split."""
