"""Pure functions that render API responses as HTML. All text from outside is escaped here."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

STYLE = """
<style>
.hb-bar {display:flex;height:10px;border-radius:5px;overflow:hidden;background:rgba(128,128,128,.18);margin:2px 0 6px}
.hb-bar span {display:block;height:100%}
.hb-legend {font-size:.8rem;opacity:.85;margin-bottom:.3rem}
.hb-dot {display:inline-block;width:.65em;height:.65em;border-radius:50%;margin:0 .3em 0 .8em}
.hb-text {white-space:pre-wrap;font-size:.92rem;line-height:1.45;overflow-wrap:anywhere}
.hb-text mark {background:#fde68a;color:#111;border-radius:3px;padding:0 .1em}
.hb-later {opacity:.35}
.hb-verdict td, .hb-verdict th {padding:.1em .8em .1em 0;text-align:left}
.hb-where {font-size:.8rem;opacity:.75}
.hb-tier {font-size:.7rem;border:1px solid rgba(128,128,128,.5);border-radius:4px;padding:0 .35em;margin-left:.5em}
.hb-ledger {border-collapse:collapse;font-size:.85rem;width:100%}
.hb-ledger td,.hb-ledger th {padding:.15rem .6rem;border-bottom:1px solid rgba(128,128,128,.25);text-align:right}
.hb-ledger td:first-child,.hb-ledger th:first-child {text-align:left}
.hb-done {display:none}
.hb-linked {white-space:pre-wrap;line-height:2;overflow-wrap:anywhere}
.hb-linked a {color:inherit;text-decoration:none;border-radius:4px;padding:.1em .25em}
.hb-linked a.nil {border:1px dashed rgba(128,128,128,.8)}
.hb-linked sub {font-size:.7em;opacity:.8;margin-left:.2em}
.hb-token {display:inline-block;border-radius:4px;padding:0 .4em;margin:.12em .15em;font-size:.8rem;
  border:1px solid rgba(128,128,128,.35)}
</style>
"""


def escape(text: object) -> str:
    """Escape text for HTML content and attribute values."""
    return html.escape(str(text), quote=True)


_MARKDOWN = re.compile(r"[!-/:-@\[-`{-~]")


def plain(text: object) -> str:
    """The text for a widget that reads Markdown, so that it is shown as it is: no links, pictures, HTML or colours.

    >>> print(plain("![a](http://b) :red[c] $d$"))
    \\!\\[a\\]\\(http\\:\\/\\/b\\) \\:red\\[c\\] \\$d\\$
    """
    return _MARKDOWN.sub(lambda sign: f"\\{sign.group()}", str(text)).replace("\n", " ")


def highlighted(text: str, spans: Sequence[Mapping[str, int]], limit: int = 450) -> str:
    """The escaped text with `<mark>` around `spans` (code points), cut to `limit` characters around the first span.

    >>> highlighted("a <b> c", [{"start": 2, "end": 5}])
    'a <mark>&lt;b&gt;</mark> c'
    """
    start = 0
    if len(text) > limit and spans:
        start = max(0, min(spans[0]["start"] - limit // 4, len(text) - limit))
    end = min(len(text), start + limit)
    parts = ["… "] if start else []
    at = start
    for span in spans:
        low, high = max(span["start"], start), min(span["end"], end)
        if low >= high or low < at:
            continue
        parts += [escape(text[at:low]), "<mark>", escape(text[low:high]), "</mark>"]
        at = high
    parts.append(escape(text[at:end]))
    if end < len(text):
        parts.append(" …")
    return "".join(parts)


def facet(key: str, counts: Sequence[Mapping[str, Any]]) -> str:
    """A facet: a metadata key with its values and the count of each."""
    shown = [f'<span class="hb-token">{escape(c["value"])} {int(c["count"])}</span>' for c in counts]
    return f"<div><b>{escape(key)}</b>: {''.join(shown)}</div>"


_KIND_COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#be185d", "#0891b2", "#65a30d", "#dc2626")


def kind_colour(kind: str) -> str:
    """The colour of an entity kind as `#rrggbb`, derived from its name."""
    return _KIND_COLOURS[sum(kind.encode()) % len(_KIND_COLOURS)]


def linked_text(text: str, links: Sequence[Mapping[str, Any]]) -> str:
    """The text with its mentions as links to `#mention-N`, coloured by entity kind; NIL has a dashed border.

    >>> linked_text("<b>", [])
    '<div class="hb-linked">&lt;b&gt;</div>'
    """
    parts, at = [], 0
    for number, link in enumerate(links):
        start, end = link["mention"]["start"], link["mention"]["end"]
        if start < at:
            continue  # mentions may overlap if the request gave them; show the first one
        parts.append(escape(text[at:start]))
        shown = escape(text[start:end])
        if link["entity_id"] is None:
            title = escape(f"NIL: {link['reason'].replace('_', ' ')}")
            parts.append(f'<a class="nil" href="#mention-{number}" title="{title}">{shown}<sub>NIL</sub></a>')
        else:
            kind = link["candidates"][0]["kind"] if link["candidates"] else ""
            title = escape(f"{link['title']} ({link['probability']:.0%})")
            parts.append(
                f'<a href="#mention-{number}" title="{title}" style="background:{kind_colour(kind)}33">{shown}'
                f"<sub>{link['probability']:.0%}</sub></a>"
            )
        at = end
    parts.append(escape(text[at:]))
    return f'<div class="hb-linked">{"".join(parts)}</div>'


def mentioned(collection: str, found: Mapping[str, Any]) -> str:
    """The documents of a collection that mention an entity."""
    titles = ", ".join(escape(result["title"] or result["doc_id"]) for result in found["shown"])
    return f"<div>In {int(found['documents'])} documents of <b>{escape(collection)}</b>: {titles}</div>"


def entity_link(kb: str, entity_id: str, title: str) -> str:
    """A link to the page of an entity.

    >>> entity_link("k", "a&b", "<i>")
    '<a href="entity?kb=k&amp;id=a%26b" target="_self">&lt;i&gt;</a>'
    """
    address = f"entity?kb={_iri(kb)}&id={_iri(entity_id)}"
    return f'<a href="{escape(address)}" target="_self">{escape(title)}</a>'


def entity_card(entity: Mapping[str, Any]) -> str:
    """An entity: kind, world, aliases, description."""
    tags = "".join(f"<span class='hb-tier'>{escape(entity[key])}</span>" for key in ("kind", "world") if entity[key])
    names = ", ".join(escape(item) for item in entity["aliases"])
    also = f"<div>also {names}</div>" if names else ""
    return f"{tags}{also}<div class='hb-text'>{escape(entity['description'])}</div>"


def job_line(job: Mapping[str, Any]) -> str:
    """One ingestion job: collection, state, progress, errors."""
    told = job["progress"]
    parts = [f"<b>{escape(job['collection'])}</b>", f"<span class='hb-tier'>{escape(job['state'])}</span>"]
    if "rows" in told:
        parts.append(f"{told['rows']:,} rows, {told['rows_per_s']:,.0f}/s")
        counts = [
            f"{told[name]:,} {name}" for name in ("created", "updated", "unchanged", "rejected") if told.get(name)
        ]
        parts.append(escape(", ".join(counts)))
        files = [
            f"{told[f'files_{what}']:,} {what}" for what in ("read", "skipped", "rejected") if told.get(f"files_{what}")
        ]
        if files:
            parts.append(escape(f"files: {', '.join(files)}"))
    parts += [f"<div class='hb-text'>{escape(note)}</div>" for note in told.get("notes", ())]
    if job["state"] in {"queued", "running"} and "eta_s" in told:
        parts.append(f"about {told['eta_s']:.0f} s left")
    trouble = f"<div class='hb-text'>{escape(job['error'] or job['message'])}</div>"
    about = f"<div class='hb-text'>{escape(job['id'])} · {escape(job['created'])}</div>"
    return f"<div class='hb-job' data-state='{escape(job['state'])}'>{' '.join(parts)}{trouble}{about}</div>"


_COMPARED = (
    ("judged", "judged queries"),
    ("held_out", "held-out questions"),
    ("signal", "held-out questions, this signal alone"),
)
_STAGES = ("data", "negatives", "train", "encode", "evaluate", "approve", "switch")


def where(passage: Mapping[str, Any], title: str) -> str:
    """The headings over a passage, without the title, and its place in the original."""
    steps = [step for step in passage["path"] if step != title]
    told = " › ".join(steps) + (f" ({passage['place']})" if passage["place"] else "")
    return f"<div class='hb-where'>{escape(told.strip())}</div>" if told else ""


def retraining(job: Mapping[str, Any]) -> str:
    """One retraining job: stages, progress, and the result of the gate."""
    told = job["progress"]
    at = _STAGES.index(job["stage"]) if job["stage"] in _STAGES else 0
    over = job["state"] == "done"
    marks = []
    for place, stage in enumerate(_STAGES):
        mark = "✓ " if over or place < at else ""
        later = " hb-later" if not over and place > at else ""
        marks.append(f"<span class='hb-tier{later}'>{mark}{stage}</span>")
    about = f"{escape(job['state'])} · {escape(job['id'])} · {escape(job['created'])}"
    parts = [f"<b>Retraining</b> <span>{about}</span><div>{' '.join(marks)}</div>", f"<div>{_so_far(told)}</div>"]
    if told.get("verdict"):
        parts.append(_verdict(told["verdict"]))
    parts.append(f"<div class='hb-text'>{escape(job['error'] or job['message'])}</div>")
    return f"<div class='hb-job hb-retraining' data-state='{escape(job['state'])}'>{''.join(parts)}</div>"


def _so_far(told: Mapping[str, Any]) -> str:
    parts = []
    if data := told.get("data"):
        parts.append(
            f"{data['rows']:,} questions to learn from ({data['from_clicks']:,} of clicks), "
            f"{data['held_out']:,} held out, {data['judged']:,} judged"
        )
    if train := told.get("train"):
        parts.append(f"step {train['step']:,} of {train['of']:,}, loss {train['loss']:.3f}")
    if encoded := told.get("encode"):
        parts.append(", ".join(f"{count:,} {escape(what)}" for what, count in encoded.items()))
    return escape(" · ").join(parts)


def _verdict(verdict: Mapping[str, Any]) -> str:
    """The result of the gate: a table of nDCG@10 and the list of conditions."""
    rows = []
    for name, shown in _COMPARED:
        if found := verdict["figures"].get(name):
            before, after = found["serving"]["nDCG@10"], found["candidate"]["nDCG@10"]
            rows.append(
                f"<tr><td>{found['queries']:,} {shown}</td><td>{before:.4f}</td><td>{after:.4f}</td>"
                f"<td>{found['gain']:+.4f}</td><td>{found['lower_bound']:+.4f}</td></tr>"
            )
    head = "<tr><th>nDCG@10</th><th>serving</th><th>candidate</th><th>gain</th><th>at least (95 %)</th></tr>"
    checks = "".join(
        f"<li data-passed='{str(bool(item['passed'])).lower()}'>{'✓' if item['passed'] else '✗'} {escape(item['says'])}"
        "</li>"
        for item in verdict["checks"]
    )
    return f"<table class='hb-verdict'>{head}{''.join(rows)}</table><ul>{checks}</ul>"


def generation_line(record: Mapping[str, Any], answers: bool) -> str:
    """One generation: id, date, encoders and note. `answers` says whether it is the serving one."""
    tag = "<span class='hb-tier'>answers</span>" if answers else ""
    about = " · ".join(
        escape(record[name]) for name in ("created", "dense_encoder", "vdr_model", "note") if record[name]
    )
    state = escape(record["id"]) + ("!" if answers else "")
    head = f"<b>{escape(record['id'])}</b>{tag}"
    return f"<div class='hb-generation' data-state='{state}'>{head}<div class='hb-text'>{about}</div></div>"


def dead_letter(record: Mapping[str, Any]) -> str:
    """One dead letter: the task that failed permanently, and its error."""
    task = f"<b>{escape(record['task'])}</b> {escape(' '.join(record['args']))}"
    return f"{task}<div class='hb-text'>{escape(record['error'])}</div>"


def rejects(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rejected rows: place, reason and beginning of each."""
    return "".join(
        f"<div class='hb-text'>{escape(row['file'])}:{int(row['line'])} {escape(row['message'])} "
        f"<code>{escape(row['raw'])}</code></div>"
        for row in rows
    )


_NIF = """@prefix nif: <http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#> .
@prefix itsrdf: <http://www.w3.org/2005/11/its/rdf#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
"""


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    for char, name in (("\n", "n"), ("\r", "r"), ("\t", "t")):
        escaped = escaped.replace(char, f"\\{name}")
    return f'"{escaped}"'


def _iri(part: str) -> str:
    return quote(part, safe="")


def nif(text: str, links: Sequence[Mapping[str, Any]], kb: str) -> str:
    """The links as NIF 2.0 in Turtle (Hellmann et al. 2013), readable by GERBIL. NIL mentions have no `taIdentRef`."""

    def node(start: int, end: int) -> str:
        return f"<urn:hyblink:text#char={start},{end}>"

    def number(value: int) -> str:
        return f'"{value}"^^xsd:nonNegativeInteger'

    context = node(0, len(text))
    about = f"nif:beginIndex {number(0)} ; nif:endIndex {number(len(text))}"
    parts = [_NIF, f"{context} a nif:Context, nif:RFC5147String ; {about} ;\n  nif:isString {_literal(text)} ."]
    for link in links:
        start, end = link["mention"]["start"], link["mention"]["end"]
        lines = [
            f"{node(start, end)} a nif:Phrase, nif:RFC5147String ; nif:referenceContext {context}",
            f"nif:beginIndex {number(start)} ; nif:endIndex {number(end)}",
            f"nif:anchorOf {_literal(text[start:end])}",
        ]
        if link["entity_id"] is not None:
            lines.append(f"itsrdf:taIdentRef <urn:hyblink:{_iri(kb)}:{_iri(link['entity_id'])}>")
            lines.append(f'itsrdf:taConfidence "{link["probability"]:.6f}"^^xsd:double')
        parts.append(" ;\n  ".join(lines) + " .")
    return "\n".join(parts) + "\n"
