"""`hyblink link` and `hyblink annotate`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyblink.app.cli.console import answer, new_file, note, opened, progress, reported, say, told_if_slow
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import CollectionOption, JsonOption, KbOption

if TYPE_CHECKING:
    from hyblink.app.application import App
    from hyblink.app.core.types.linking import LinkResult

_LINKED_AT_ONCE = 256


def link(
    path: Annotated[str | None, typer.Argument(help="A text file, or - for standard input.")] = None,
    kb: KbOption = "entities",
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Read lines from the terminal and link each.")
    ] = False,
    mentions: Annotated[
        Path | None,
        typer.Option(help="Link the mentions of this file instead of a text: .jsonl or .jsonl.gz in BLINK's format."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The .jsonl file to write the links of --mentions to; by default they are printed."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Links below this probability become NIL; by default the link profile's threshold."),
    ] = None,
    detectors: Annotated[
        str | None,
        typer.Option(
            help="Mention detectors, comma-separated: dictionary, elq, spacy:PIPELINE; by default the setting."
        ),
    ] = None,
    rerank: Annotated[
        bool | None,
        typer.Option(
            "--cross/--no-cross", help="Re-rank candidates with the cross-encoder, or not; by default the setting."
        ),
    ] = None,
    coherence: Annotated[
        float | None,
        typer.Option(
            help="Weight of coherence: similarity to the entities of neighbouring mentions; by default not used."
        ),
    ] = None,
    joint: Annotated[
        float | None,
        typer.Option(help="Decide spans and links jointly, with this smallest joint probability of a link (0 to 1)."),
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            help="Name of an annotated collection: the entities of its top documents for the text become more probable."
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(min=0, help="Number of candidates to show for each mention.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Link the mentions of a text to entities of a knowledge base."""
    options: dict[str, Any] = {
        "kb": kb, "detectors": detectors, "threshold": threshold, "rerank": rerank, "coherence": coherence,
        "joint": joint, "evidence": evidence, "candidates": candidates,
    }  # fmt: skip
    with reported(as_json):
        from hyblink.app.core.settings import Settings

        _check_one((path is not None) + interactive + (mentions is not None))
        if out is not None:
            new_file(out)
        text = None if path is None else _read(path, Settings().link.max_text_chars)
    if text is not None:
        _link_text(text=text, as_json=as_json, **options)
        return
    with reported(as_json), opened() as app:
        from hyblink.app.core.errors import UserError
        from hyblink.app.core.types.linking import Text

        linked = _linker(app, **options)
        if mentions is not None:
            _link_mentions(mentions, linked, out, as_json)
            return
        while (line := _asked()) is not None:
            try:
                if line.strip():
                    _show(linked(Text(line)), as_json)
            except UserError as error:
                note(f"error ({error.code}): {error}")


def _check_one(given: int) -> None:
    """Raises InvalidInputError unless exactly one thing to link was given."""
    from hyblink.app.core.errors import InvalidInputError

    if given != 1:
        raise InvalidInputError("one thing is to be linked", expected="a file, - for standard input, -i or --mentions")


@reads
def _link_text(*, text: str, as_json: bool, **options: Any) -> None:
    """Link a text and print its links; `options` are those of `_linker`."""
    with reported(as_json), opened() as app:
        from hyblink.app.core.types.linking import Text

        _show(_linker(app, **options)(Text(text)), as_json)


def _linker(
    app: App,
    *,
    kb: str,
    detectors: str | None,
    threshold: float | None,
    rerank: bool | None,
    coherence: float | None,
    joint: float | None,
    evidence: str | None,
    candidates: int,
) -> Callable[..., LinkResult]:
    """A function from texts to their links, by a command's options. The cross-encoder is loaded."""
    from dataclasses import replace

    from hyblink.app.core.errors import EncoderUnavailableError
    from hyblink.app.core.types.linking import LinkRequest, Text
    from hyblink.app.operations.query_entities import EVIDENT_HITS, with_evidence

    if app.settings.link.rerank if rerank is None else rerank:
        try:
            with told_if_slow("the cross-encoder is being loaded"):
                app.encoders.entity_cross().load()
        except EncoderUnavailableError as error:
            if rerank:
                note(f"without the cross-encoder: {error}")

    def linked(*texts: Text) -> LinkResult:
        names = tuple(detectors.split(",")) if detectors else None
        request = LinkRequest(
            texts, shown=candidates, detectors=names, threshold=threshold, rerank=rerank,
            coherence=coherence, joint=joint,
        )  # fmt: skip
        if evidence is not None:
            request = replace(with_evidence(app, request, evidence, EVIDENT_HITS), evidence=2.0)
        return app.linker.link(kb, request)

    return linked


def _link_mentions(data: Path, linked: Callable[..., LinkResult], out: Path | None, as_json: bool) -> None:
    """Link a file of mentions; write a JSON line for each to `out`, or print it as JSON or text."""
    import orjson

    from hyblink.app.evaluation.linking.mentions import read_mentions

    rows = read_mentions(data)
    made: list[bytes] = []
    with progress(as_json) as bars:
        advance = bars("mentions", len(rows))
        for at in range(0, len(rows), _LINKED_AT_ONCE):
            part = rows[at : at + _LINKED_AT_ONCE]
            for row, text in zip(part, linked(*(item.text for item in part)).texts, strict=True):
                (found,) = text.links
                value = _as_row(row.id, row.context.mention, found)
                made.append(orjson.dumps(value))
                if out is None:
                    meaning = f"{found.entity_id} ({found.title})" if found.entity_id else "NIL"
                    plain = f"{row.id} {row.context.mention!r} → {meaning}  p = {found.probability:.2f}"
                    say(made[-1].decode() if as_json else plain)
            advance(len(part))
    if out is not None:
        out.write_bytes(b"\n".join(made) + b"\n")
        nil = sum(b'"entity_id":null' in item for item in made)
        line = f"{out}: {len(made)} mentions, {nil} of them NIL"
        answer({"mentions": len(made), "nil": nil}, as_json, [line])


def _as_row(row_id: str, mention: str, found: Any) -> dict[str, Any]:
    best = [{"id": candidate.entity_id, "probability": candidate.probability} for candidate in found.candidates]
    return {
        "id": row_id,
        "mention": mention,
        "entity_id": found.entity_id,
        "title": found.title,
        "probability": found.probability,
        "reason": found.reason,
        "candidates": best,
    }


def annotate(
    collection: CollectionOption = "default",
    kb: KbOption = "entities",
    threshold: Annotated[
        float | None,
        typer.Option(help="Smallest probability of a link; by default the link profile's threshold."),
    ] = None,
    always: Annotated[
        bool | None,
        typer.Option("--always/--no-more", help="Also annotate documents that arrive later, or stop doing so."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Annotate every document of a collection with the entities that it mentions.

    Their ids are stored in the metadata field `linked_entities`, which searches can use as facet, filter and boost.
    """
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.core.types.collections import Annotation
        from hyblink.app.operations.annotation import annotate as annotate_collection

        annotation = Annotation(kb, threshold)
        if always is not None:
            app.catalog.save_annotation(collection, annotation if always else None)
        if always is False:
            answer({"always": False}, as_json, ["documents are no longer annotated as they come"])
            return
        with progress(as_json) as bars:
            advance = bars("documents", app.catalog.engine(collection).store.reader().counts().documents)
            done = annotate_collection(app, collection, annotation, progress=advance)
        line = f"{done.documents} documents, {done.links} links; {done.changed} changed, {done.skipped} too long"
        answer(asdict(done), as_json, [line])


def _read(path: str, limit: int) -> str:
    from hyblink.app.core.errors import InvalidInputError, NotFoundError

    try:
        raw = sys.stdin.buffer.read(4 * limit + 1) if path == "-" else Path(path).read_bytes()
        return raw.decode()
    except FileNotFoundError as error:
        raise NotFoundError("no such file", received=path) from error
    except OSError as error:
        raise InvalidInputError(f"cannot be read: {error.strerror}", received=path, expected="a text file") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"not UTF-8 at byte {error.start}", received=path, expected="UTF-8 text") from error


def _asked() -> str | None:
    """The next line from the terminal; None at the end of the input."""
    try:
        return input("text> ")
    except EOFError:
        return None


def _show(result: LinkResult, as_json: bool) -> None:
    answer(result, as_json, lambda: _links(result))
    if not as_json:
        for part, why in result.missing.items():
            note(f"{part}: {why}")


def _links(result: LinkResult) -> Iterator[str]:
    for text in result.texts:
        for item in text.links:
            meaning = f"{item.entity_id} ({item.title})" if item.entity_id else f"NIL ({item.reason.replace('_', ' ')})"
            mention = item.mention
            yield f"{mention.start}:{mention.end} {mention.text!r} → {meaning}  p = {item.probability:.2f}"
            for candidate in item.candidates:
                lines = " + ".join(f"{s.signal} {s.contribution:.2f}" for s in candidate.signals if s.contribution)
                yield (
                    f"    {candidate.rank}. {candidate.title} [{candidate.entity_id}] "
                    f"{candidate.probability:.2f}: {lines}"
                )
