"""What mails of all formats have in common: the form of their documents, and safe names for attachments."""

from __future__ import annotations

import datetime
import re

from hyblink.indexer.readers.blocks import Blocks, flat
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.htmlblocks import add_page, page

SHOWN = ("From", "To", "Cc", "Date")
_BAD_NAME = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
_LONGEST_NAME = 120


def mail_file(
    headers: dict[str, str], text: str, *, is_html: bool, to: list[str], sent: str, attachments: list[str]
) -> WholeFile:
    """The document of a mail: its headers as the first block, then its body."""
    blocks = Blocks()
    blocks.add("\n".join(f"{name}: {headers[name]}" for name in SHOWN if headers.get(name)))
    root = page(text) if is_html else None
    if root is not None:
        add_page(blocks, root)
    elif not is_html:
        blocks.add(text)
    metadata = {
        "from": headers.get("From", ""), "to": to, "date": sent,
        "message_id": headers.get("Message-ID", ""), "attachments": attachments,
    }  # fmt: skip
    file = blocks.done(headers.get("Subject", ""), metadata)
    # A mail's headings are those of its sender's layout: sections of them would say little.
    return WholeFile(file.title, file.text, file.metadata)


def safe_name(name: str, otherwise: str) -> str:
    """A file name that leads nowhere else: without folders and control characters, never empty."""
    base = flat(_BAD_NAME.sub(" ", name.replace("\\", "/").rpartition("/")[2])).strip(". ")
    if len(base) > _LONGEST_NAME:
        stem, dot, suffix = base.rpartition(".")
        base = stem[: _LONGEST_NAME - len(suffix) - 1] + dot + suffix if len(suffix) < 10 and dot else base
    return base[:_LONGEST_NAME] or otherwise


def iso(when: datetime.datetime) -> str:
    """A moment in ISO form."""
    return when.replace(microsecond=0).isoformat()
