"""Reads mails (.eml) and mailboxes (.mbox); the functions for Outlook messages (.msg) are here too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.blocks import flat, reading
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.mailparts import SHOWN, iso, mail_file, safe_name
from hyblink.indexer.readers.outlook import msg_attachments, read_msg
from hyblink.indexer.readers.rows import decode

__all__ = ["attachments", "mbox_messages", "msg_attachments", "read_eml", "read_msg"]

_LONGEST_HEADER = 50_000
_MOST_PARTS = 10_000
_READ = ("text", "multipart")
"""The main types of parts with the body. One that claims to have parts but has none is text."""
_HEADER = re.compile(rb"(?:From |>?From |[!-9;-~]+[ \t]*:)")
_QUOTED_FROM = re.compile(rb">+From ")


def read_eml(data: bytes) -> WholeFile:
    """The headers and the body of a mail. Its title is the subject. Raises InvalidInputError if it is no mail.

    Of two forms of the body the plain one is read. Attachments are named only.
    """
    with reading("mail"):
        message = _parsed(data)
        headers = {name: _header(message, name) for name in (*SHOWN, "Subject", "Message-ID")}
        kept = [_safe_name(name, count) for count, (name, _) in enumerate(_attached(message), 1)]
        text, is_html = _body(message)
        return mail_file(
            headers, text, is_html=is_html, to=_addresses(headers["To"]), sent=_sent(headers["Date"]), attachments=kept
        )


def attachments(data: bytes) -> list[tuple[str, bytes]]:
    """The attachments of a mail: (safe file name, bytes). An attached mail is given as an .eml file."""
    with reading("mail"):
        return [
            (_safe_name(name, count), _payload(part)) for count, (name, part) in enumerate(_attached(_parsed(data)), 1)
        ]


def mbox_messages(path: Path) -> Iterator[bytes]:
    """The mails of a mailbox, one by one. Only one is in memory.

    A mail begins at a line "From " after a blank line (or at the start). Raises InvalidInputError if there is none.
    """
    lines: list[bytes] = []
    begun = False
    after_blank = True
    with path.open("rb") as file:
        for line in file:
            if after_blank and line.startswith(b"From "):
                if begun and lines:
                    yield b"".join(lines)
                begun, lines = True, []
            elif begun:
                lines.append(line[1:] if _QUOTED_FROM.match(line) else line)
            elif line.strip():
                raise InvalidInputError("not a mailbox", received=line[:40], expected='a first line "From "')
            after_blank = not line.strip()
    if begun and lines:
        yield b"".join(lines)


def _safe_name(name: str, count: int) -> str:
    return safe_name(name, f"attachment-{count}")


def _parsed(data: bytes) -> Message[str, str]:
    from email import policy
    from email.parser import BytesParser

    start = data.lstrip(b"\xef\xbb\xbf\r\n\t ")
    # A mail saved with the line of its mailbox before it.
    if start.startswith((b"From ", b">From ")):
        start = start.partition(b"\n")[2]
    if not _HEADER.match(start):
        raise InvalidInputError("not a mail: it begins with no header", received=start[:40], expected="headers")
    # The older policy: the newer one parses every header, which fails on broken ones and takes quadratic time.
    return BytesParser(policy=policy.compat32).parsebytes(start)


def _header(message: Message[str, str], name: str) -> str:
    wanted = name.lower()
    value = next((str(raw) for key, raw in message.raw_items() if key.lower() == wanted), "")
    return flat(_words(value[:_LONGEST_HEADER]))


def _words(value: str) -> str:
    """A header with its encoded words decoded. The charset that it states may be wrong or unknown."""
    from email.errors import HeaderParseError
    from email.header import decode_header

    # Bytes that are no ASCII stand in it as halves of pairs.
    value = _unescaped(re.sub(r"[\r\n]+", " ", value))
    if "=?" not in value:
        return value
    try:
        parts = decode_header(value)
    except (HeaderParseError, ValueError):
        return value
    return "".join(part if isinstance(part, str) else _decoded(part, charset) for part, charset in parts)


def _unescaped(value: str) -> str:
    return value if value.isascii() else _decoded(value.encode("utf-8", "surrogateescape"), None)


def _addresses(value: str) -> list[str]:
    from email.utils import getaddresses

    found = [address or name for name, address in getaddresses([value])]
    return [address for address in found if address]


def _sent(value: str) -> str:
    """The date of a mail in ISO form, or an empty string."""
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return ""
    return iso(when)


def _parts(message: Message[str, str]) -> Iterator[Message[str, str]]:
    """The parts of a mail in their order, without those of mails that are attached to it."""
    stack: list[Message[str, str]] = [message]
    for _ in range(_MOST_PARTS):
        if not stack:
            return
        part = stack.pop()
        held = part.get_payload()
        if part.is_multipart() and isinstance(held, list) and part.get_content_maintype() != "message":
            stack.extend(inner for inner in reversed(held) if isinstance(inner, Message))
        else:
            yield part


def _is_attached(part: Message[str, str]) -> bool:
    if part.get_content_disposition() == "attachment" or part.get_content_maintype() == "message":
        return True
    named = bool(_name(part))
    # Pictures in the text have ids, and no names that say anything.
    return named or part.get_content_maintype() not in _READ


def _name(part: Message[str, str]) -> str:
    try:
        return flat(_words(part.get_filename() or ""))
    except (ValueError, LookupError, TypeError):  # a name in a charset that is unknown
        return ""


def _attached(message: Message[str, str]) -> Iterator[tuple[str, Message[str, str]]]:
    for part in _parts(message):
        # A mail that is no more than a picture or the like is one part, without a name.
        if not _is_attached(part) or (part is message and not _name(part) and part.get_content_maintype() in _READ):
            continue
        name = _name(part)
        if part.get_content_type() == "message/rfc822":
            inner = part.get_payload()
            first = inner[0] if isinstance(inner, list) and inner else None
            name = name or (_header(first, "Subject") if isinstance(first, Message) else "") or "message"
            name = name.replace("/", "-") if not _name(part) else name
            name = name if name.lower().endswith(".eml") else f"{name}.eml"
        yield name, part


def _payload(part: Message[str, str]) -> bytes:
    held = part.get_payload()
    if isinstance(held, list):
        return b"\n".join(_raw(inner) for inner in held if isinstance(inner, Message))
    found = part.get_payload(decode=True)
    return found if isinstance(found, bytes) else b""


def _raw(message: Message[str, str]) -> bytes:
    try:
        return message.as_bytes(unixfrom=False)
    except (UnicodeError, LookupError, ValueError):
        return message.as_string().encode("utf-8", "replace")


def _body(message: Message[str, str]) -> tuple[str, bool]:
    """(body, True if it is HTML). The plain parts if there are any that say something, else the HTML ones."""
    plain: list[str] = []
    rich: list[str] = []
    for part in _parts(message):
        if part.get_content_maintype() not in _READ or (_is_attached(part) and part is not message):
            continue
        kind = part.get_content_type()
        (rich if kind == "text/html" else plain).append(_text(part))
    said = "\n\n".join(text for text in plain if text.strip())
    return (said, False) if said or not rich else ("\n".join(rich), True)


def _text(part: Message[str, str]) -> str:
    charset: str | None
    try:
        charset = part.get_content_charset()
    except (ValueError, LookupError, TypeError):
        charset = None
    return _decoded(_payload(part), charset)


def _decoded(data: bytes, charset: str | None) -> str:
    for name in dict.fromkeys((charset or "utf-8", "utf-8")):
        try:
            return data.decode(name)
        except (LookupError, ValueError):  # unknown, or wrong
            continue
    try:
        return decode(data)
    except InvalidInputError:
        return data.decode("cp1252", "replace")
