"""Reads Outlook messages (.msg)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.blocks import flat, reading
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.mailparts import iso, mail_file, safe_name

if TYPE_CHECKING:
    from oxmsg import Message
    from oxmsg.attachment import Attachment

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MESSAGE_ID = 0x1035
_CC = 0x0E03
_SHORT_NAME = 0x3704
_SENT = 0x0039
_DELIVERED = 0x0E06


def read_msg(data: bytes) -> WholeFile:
    """The headers and the body of an Outlook message, in the same form as those of a mail. Raises InvalidInputError."""
    with reading("Outlook"):
        message = _loaded(data)
        properties = message.properties
        headers = {name.lower(): value for name, value in message.message_headers.items()}
        named = [(flat(each.name), flat(each.email_address)) for each in message.recipients]
        to = [address or name for name, address in named if address or name]
        everyone = ", ".join(f"{name} <{address}>" if name and address else name or address for name, address in named)
        when = message.sent_date or properties.date_prop_value(_DELIVERED)
        sent = "" if when is None else iso(when)
        shown = {
            "From": flat(str(message.sender or "")),
            "To": flat(headers.get("to", "")) or everyone,
            "Cc": flat(headers.get("cc", "") or properties.str_prop_value(_CC) or ""),
            "Date": flat(headers.get("date", "")) or sent,
            "Subject": message.subject,
            "Message-ID": flat(headers.get("message-id", "") or properties.str_prop_value(_MESSAGE_ID) or ""),
        }
        body = message.body or ""
        rich = "" if body.strip() else _rich(message)
        return mail_file(
            shown, rich or body, is_html=bool(rich), to=to, sent=sent, attachments=[name for name, _ in _named(message)]
        )


def msg_attachments(data: bytes) -> list[tuple[str, bytes]]:
    """The attachments of an Outlook message: (safe file name, bytes). Those that are only linked are left out."""
    with reading("Outlook"):
        found = ((name, attached.file_bytes) for name, attached in _named(_loaded(data)))
        return [(name, content) for name, content in found if content is not None]


def _loaded(data: bytes) -> Message:
    from oxmsg import Message

    # The library takes short bytes for the name of a file.
    if not data.startswith(_OLE) or len(data) < 1536:
        raise InvalidInputError("not an Outlook message", received=data[:8], expected="a whole .msg file")
    message = Message.load(data)
    if not message.message_class and not message.subject and not message.body:
        raise InvalidInputError("not an Outlook message but another file of its kind", expected="a .msg file")
    return message


def _rich(message: Message) -> str:
    try:
        return message.html_body or ""
    except (UnicodeError, LookupError):  # it states another charset than it has
        return ""


def _named(message: Message) -> list[tuple[str, Attachment]]:
    return [
        (
            safe_name(
                attached.file_name or attached.properties.str_prop_value(_SHORT_NAME) or "", f"attachment-{count}"
            ),
            attached,
        )
        for count, attached in enumerate(message.attachments, 1)
    ]
