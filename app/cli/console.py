"""Shared by the commands: output as text or JSON, progress bars, error messages."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hyblink.app.core.errors import ConflictError, HyblinkError, InvalidInputError, NotFoundError, UserError
from hyblink.app.core.extras import not_installed

if TYPE_CHECKING:
    from hyblink.app.application import App
    from hyblink.app.core.progress import Advance, Progress
    from hyblink.app.core.types.ranking import Signal


@dataclass(frozen=True, slots=True)
class Served:
    """A command that runs in a service for another process: it uses the service's application and prints over there."""

    app: App
    send: Callable[..., None]

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Within it commands of this thread run so."""
        token = _SERVED.set(self)
        try:
            yield
        finally:
            _SERVED.reset(token)


_SERVED: ContextVar[Served | None] = ContextVar("served", default=None)


def served_by() -> Served | None:
    """The service that this command runs in; None in a process of its own."""
    return _SERVED.get()


def emit(value: object) -> None:
    """Print a value as JSON on standard output."""
    import orjson

    emit_text(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


def emit_text(text: str) -> None:
    """Print JSON that is text already."""
    if served := _SERVED.get():
        served.send(json=text)
        return
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Print text on standard output; characters that the terminal cannot show are escaped."""
    if served := _SERVED.get():
        served.send(out=text)
        return
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def answer(
    value: object,
    as_json: bool,
    lines: Callable[[], Iterable[str]] | Iterable[str],
    notes: Iterable[str] = (),
) -> None:
    """Print a command's result as JSON, or as text: `lines` on standard output, `notes` on standard error.

    The notes are not printed with JSON, since the value holds the same information.
    """
    if as_json:
        emit(value)
        return
    for line in lines() if callable(lines) else lines:
        say(line)
    for line in notes:
        note(line)


def note(text: str) -> None:
    """Print text on standard error, which leaves standard output to results and JSON."""
    if served := _SERVED.get():
        served.send(err=text)
        return
    sys.stderr.write(text + "\n")


@contextmanager
def told_if_slow(what: str, after_s: float = 1.0) -> Iterator[None]:
    """Say on standard error that something is going on, if it takes longer than `after_s` seconds."""
    timer = threading.Timer(after_s, copy_context().run, (note, f"{what} …"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def parse_pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """Parse the values of a repeatable `key=value` option. Raises InvalidInputError for a value without `=`."""
    found = {}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidInputError(f"bad {option}", received=pair, expected="key=value")
        found[key.strip()] = value.strip()
    return found


def parse_json(text: str, name: str) -> Any:
    """Parse the value of an option that takes JSON. Raises InvalidInputError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not JSON: {error}", received=text, expected="JSON") from error


def parse_weights(text: str | None) -> dict[Signal, float] | None:
    """Parse the option --weights: signals and their weights as JSON. Raises InvalidInputError."""
    if text is None:
        return None
    from hyblink.ranker.signals.registry import signal_named

    given = parse_json(text, "--weights")
    if not (
        isinstance(given, dict) and all(isinstance(w, int | float) and not isinstance(w, bool) for w in given.values())
    ):
        raise InvalidInputError("bad weights", received=text, expected='JSON such as {"bm25": 0.4, "dense": 0.6}')
    return {signal_named(name): float(weight) for name, weight in given.items()}


def new_file(path: Path) -> Path:
    """Return the path of a file to write. Raises ConflictError if the file exists."""
    if path.exists():
        raise ConflictError("the file exists already", received=str(path), expected="a new file")
    return path


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """Show progress bars on standard error; none if that is not a terminal, or if `quiet`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, disable=quiet or not console.is_terminal) as bars:

        def begin(stage: str, total: int | None = None) -> Advance:
            task = bars.add_task(stage, total=total, rate="")

            def advance(count: int = 1, note: str = "") -> None:
                bars.update(task, advance=count, rate=note)

            return advance

        yield begin


@contextmanager
def opened() -> Iterator[App]:
    """Build the application, and close it afterwards. In a service it is the service's own, which stays open."""
    if served := _SERVED.get():
        yield served.app
        return
    from hyblink.app.bootstrap import build
    from hyblink.app.core.private import write_private_files

    app = build()
    if app.settings.private_data:
        write_private_files()
    try:
        yield app
    finally:
        app.close()


def where_collections_are() -> str:
    """Where collections are looked for, and how to name another place."""
    from hyblink.app.core.settings import Settings

    served = _SERVED.get()
    settings = served.app.settings if served else Settings()
    if settings.engine == "opensearch":
        return f"collections are on {', '.join(settings.opensearch.hosts)} (HYBLINK_OPENSEARCH__HOSTS)"
    return f"collections are in {settings.data_dir.resolve()} (HYBLINK_DATA_DIR names another folder)"


@contextmanager
def audited(app: App, act: str) -> Iterator[None]:
    """Write an action and its outcome to the audit log."""
    from hyblink.app.access.audit import Audit, local_user

    log = Audit(app.catalog.records())
    try:
        yield
    except BaseException as error:
        log.add(local_user(), act, getattr(error, "code", type(error).__name__))
        raise
    log.add(local_user(), act, "done")


@contextmanager
def _missing_extras() -> Iterator[None]:
    """Turn a missing module into the error that names the extra which brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        known = not_installed(error)
        if known is None:
            raise
        raise known from error


@contextmanager
def reported(as_json: bool = False) -> Iterator[None]:
    """Report errors as one line (and as JSON if `as_json`), and exit with a status.

    The status is 2 for errors in the input, 1 for other errors, 130 for Ctrl-C.
    """
    try:
        with _missing_extras():
            yield
    except HyblinkError as error:
        if as_json:
            detail = {
                "code": error.code,
                "message": error.message,
                "received": error.received,
                "expected": error.expected,
            }
            emit({"error": detail})
        note(f"error ({error.code}): {error}")
        if isinstance(error, NotFoundError) and error.choices is not None:
            note(where_collections_are())
        raise typer.Exit(2 if isinstance(error, UserError) else 1) from error
    except KeyboardInterrupt as stopped:
        note("stopped; what was acknowledged is kept")
        raise typer.Exit(130) from stopped
