"""What `hyblink ingest` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyblink.app.operations.ingestion import Ingested
    from hyblink.app.operations.sync import Synced
    from hyblink.indexer.readers.files import FileSource
    from hyblink.indexer.readers.python_package import PythonSource

_PREVIEWED, _SHOWN_CHARS = 20, 300


@contextmanager
def spooled(paths: list[Path] | None) -> Iterator[list[Path]]:
    """The paths, with `-` (standard input) and pipes copied to files for as long as the context lasts.

    Tables are read twice, which a pipe cannot be.
    """
    import shutil
    import sys
    import tempfile

    with tempfile.TemporaryDirectory(prefix="hyblink-pipe-") as folder:
        found: list[Path] = []
        for number, path in enumerate(paths or []):
            is_pipe = path.exists() and not path.is_file() and not path.is_dir()
            if str(path) != "-" and not is_pipe:
                found.append(path)
                continue
            copy = Path(folder) / f"{number or ''}stdin"
            with copy.open("wb") as out:
                if str(path) == "-":
                    shutil.copyfileobj(sys.stdin.buffer, out)
                else:
                    with path.open("rb") as pipe:
                        shutil.copyfileobj(pipe, out)
            found.append(copy)
        yield found


def is_spooled(path: Path) -> bool:
    """Whether a path is that of a copy of a pipe, which is no source that can be read again."""
    return path.parent.name.startswith("hyblink-pipe-")


def report_of(done: Ingested) -> dict[str, Any]:
    """The outcome of an ingestion as JSON."""
    from dataclasses import asdict

    return {
        **asdict(done.report),
        "rejects_file": done.rejects_file,
        "documents": done.report.documents,
        "seconds": done.seconds,
        "encoded": done.encoded,
        "encode_seconds": done.encode_seconds,
        "outdated": done.outdated,
        "collection": done.collection,
    }


def lines_of(done: Ingested) -> list[str]:
    """The lines for people."""
    report = done.report
    files = f"{report.files_read} files read, {report.files_skipped} skipped, {report.files_rejected} rejected"
    documents = (
        f"{report.documents} documents ({report.created} new, {report.updated} changed, "
        f"{report.unchanged} unchanged, {report.rejected} rejected), {report.passages} passages written "
        f"in {done.seconds:.1f} s; {done.encoded} encoded in {done.encode_seconds:.1f} s"
    )
    return [documents, *([files] if report.files_read + report.files_skipped + report.files_rejected else [])]


def notes_of(done: Ingested) -> list[str]:
    """What was left out, guessed or read otherwise, and what to do about it."""
    report = done.report
    notes = [f"skipped {skipped}" for skipped in report.skipped]
    if report.files_skipped > len(report.skipped):
        notes.append(f"and {report.files_skipped - len(report.skipped)} more, all in {done.rejects_file}")
    notes += [f"rejected {rejected}" for rejected in report.rejects]
    notes += report.notes
    if report.replaced:
        notes.append(f"{report.replaced} rows had the id of a later row, which stays")
    if done.outdated >= 0.001:
        notes.append(
            f"{done.outdated:.1%} of the entries that BM25 counts are of replaced passages; they go within minutes "
            "where a worker runs, or with the next ingestion"
        )
    if report.rejected:
        notes.append(f"all rejected rows: {done.rejects_file}")
    if done.nothing_read:
        notes.append("nothing could be read")
    return notes


def previewed(sources: Iterable[FileSource | PythonSource]) -> tuple[dict[str, Any], list[str], list[str]]:
    """(as JSON, lines, notes) of the first documents as they would be stored, and of what would be left out."""
    documents: list[dict[str, Any]] = []
    left_out: list[str] = []
    notes: list[str] = []
    for source in sources:
        for item in source.items():
            if item.document is not None:
                one = item.document
                documents.append(
                    {
                        "id": one.id,
                        "title": one.title,
                        "text": one.text[:_SHOWN_CHARS] + ("…" if len(one.text) > _SHOWN_CHARS else ""),
                        "lang": one.lang,
                        "metadata": dict(one.metadata),
                    }
                )
            elif item.error is not None:
                left_out.append(f"rejected {item.file}:{item.line}: {item.error}")
            elif item.outcome == "skipped":
                left_out.append(f"skipped {item.file}: {item.why}")
            if len(documents) >= _PREVIEWED:
                break
        notes += getattr(source, "notes", [])
        if len(documents) >= _PREVIEWED:
            notes.append(f"only the first {_PREVIEWED} documents are shown; nothing was stored")
            break
    lines = []
    for shown in documents:
        fields = ", ".join(f"{key} = {value!r}" for key, value in shown["metadata"].items())
        lines += [f"{shown['id']}  {shown['title']}", f"    {shown['text']!r}", *([f"    {fields}"] if fields else [])]
    return {"documents": documents, "left_out": left_out, "notes": notes}, lines, [*left_out, *notes]


def synced_report(done: Synced) -> tuple[dict[str, Any], list[str], list[str]]:
    """(as JSON, lines, notes) of a sync."""
    shown: dict[str, Any] = {"removed": done.removed, "kept": done.kept}
    notes = [f"removed {ident}" for ident in done.removed[:_PREVIEWED]]
    if len(done.removed) > _PREVIEWED:
        notes.append(f"and {len(done.removed) - _PREVIEWED} more")
    if done.kept:
        notes.append(f"{len(done.kept)} documents are of files that cannot be read now, and stay")
    if done.ingested is None:
        shown |= {"added": done.added, "changed": done.changed}
        line = f"{len(done.added)} new, {len(done.changed)} changed, {len(done.removed)} gone; nothing was written"
        return shown, [line], [*(f"new {ident}" for ident in done.added[:_PREVIEWED]), *notes]
    shown |= {**report_of(done.ingested), "renamed": done.renamed}
    if done.renamed:
        notes.append(f"{done.renamed} documents are those of renamed files, and keep their vectors")
    return shown, [*lines_of(done.ingested), f"{len(done.removed)} removed"], [*notes, *notes_of(done.ingested)]
