"""Mails, Outlook messages and mailboxes: text, headers, attachments, and what is refused."""

from __future__ import annotations

import contextlib
import struct
import time
from email.message import EmailMessage
from pathlib import Path

import pytest
from support.reader_files import check

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.mail import attachments, mbox_messages, msg_attachments, read_eml, read_msg
from hyblink.indexer.readers.mailparts import safe_name


def mail() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ada Bell <ada@example.org>"
    message["To"] = "Bö <bo@example.org>, c@example.org"
    message["Cc"] = "d@example.org"
    message["Subject"] = "Wartung – Samstag"
    message["Date"] = "Fri, 01 Mar 2024 10:00:00 +0100"
    message["Message-ID"] = "<1@example.org>"
    message.set_content("The servers are down – save.\n\n\n\nBye\n")
    message.add_alternative("<p>HTML <b>form</b></p>", subtype="html")
    return message


def test_mail() -> None:
    message = mail()
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="../../etc/plän.pdf")
    message.add_attachment("notes", filename="notes.txt")
    inner = EmailMessage()
    inner["Subject"] = "Re: inner/one"
    inner.set_content("inside")
    message.add_attachment(inner)
    data = message.as_bytes()
    file = read_eml(data)
    assert file.title == "Wartung – Samstag"
    assert file.text == (
        "From: Ada Bell <ada@example.org>\nTo: Bö <bo@example.org>, c@example.org\nCc: d@example.org\n"
        "Date: Fri, 01 Mar 2024 10:00:00 +0100\n\nThe servers are down – save.\n\nBye"
    )
    assert check(file) == []
    names = ["plän.pdf", "notes.txt", "Re inner-one.eml"]
    assert file.metadata == {
        "from": "Ada Bell <ada@example.org>", "to": ["bo@example.org", "c@example.org"],
        "date": "2024-03-01T10:00:00+01:00", "message_id": "<1@example.org>", "attachments": names,
    }  # fmt: skip
    found = attachments(data)
    assert [name for name, _ in found] == names
    assert found[0][1] == b"%PDF"
    assert found[1][1].strip() == b"notes"
    assert read_eml(found[2][1]).title == "Re: inner/one"


def test_mail_of_html_only() -> None:
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content(
        "<html><head><style>p{}</style></head><body><h1>Top</h1><p>One&nbsp;two<br>three</p><script>no</script><ul><li>a<li>b</ul><img src='http://127.0.0.1:9/x.png'></body></html>",
        subtype="html",
    )
    assert read_eml(message.as_bytes()).text == "Top\n\nOne two\nthree\n\n- a\n- b"


@pytest.mark.parametrize("part", ["<div>", "<p>", "<b>", "<h1>x", "<ul><li>", "<table><tr><td>", "</p>"])
def test_deep_html(part: str) -> None:
    started = time.monotonic()
    assert read_eml(b"Content-Type: text/html\n\n" + part.encode() * 20_000 + b"end").text.endswith("end")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        ("text/plain; charset=utf-8", "Grüße".encode("cp1252"), "Grüße"),
        ("text/plain; charset=nonsense", "Grüße".encode(), "Grüße"),
        ("text/plain; charset=us-ascii", "Grüße".encode(), "Grüße"),
        ("text/plain; charset=iso-8859-1", "Grüße".encode("iso-8859-1"), "Grüße"),
        ("text/plain; charset==?utf-8?q?=00?=", b"plain", "plain"),
        ("multipart/mixed", b"no boundary", "no boundary"),
        ("multipart/mixed; boundary=x", b"--x\r\nContent-Type: text/plain\r\n\r\ncut", "cut"),
    ],
)
def test_wrong_charsets_and_parts(head: str, body: bytes, text: str) -> None:
    file = read_eml(b"Subject: s\r\nContent-Type: " + head.encode() + b"\r\n\r\n" + body)
    assert file.text == text
    assert file.title == "s"


def test_odd_headers() -> None:
    file = read_eml(
        "Subject: =?nonsense?q?a=FF?= Grüße =?utf-8?b?###?=\nFrom: <<>>,@\nTo: ;;\nDate: yesterday\n\nx".encode()
    )
    assert "Grüße" in file.title
    assert file.text.endswith("\n\nx")
    assert "date" not in file.metadata
    started = time.monotonic()
    check(read_eml(b"To: " + b"a <b@c.d>, " * 100_000 + b"\nSubject: " + b"=?utf-8?q?x?= " * 100_000 + b"\n\nx"))
    assert time.monotonic() - started < 10
    for bad in (b"", b"{}", b"\x00\x01", b"no header here\n\nx"):
        with pytest.raises(InvalidInputError):
            read_eml(bad)


def test_safe_names() -> None:
    assert safe_name("C:\\x\\..\\a.txt", "o") == "a.txt"
    assert [safe_name(name, "o") for name in ("", "..", "/", "a/..", "\x00", ".")] == ["o"] * 6
    assert safe_name("n" * 300 + ".pdf", "o") == "n" * 116 + ".pdf"


def test_mailbox(tmp_path: Path) -> None:
    path = tmp_path / "a.mbox"
    path.write_bytes(
        b"From a@x Fri Mar  1 10:00:00 2024\nSubject: one\n\nHi\n>From here\n>>From there\nFrom no new mail\n\n"
        b"From b@x Fri Mar  1 10:00:00 2024\nSubject: two\n\nHo\n\n"
    )
    found = list(mbox_messages(path))
    assert [read_eml(message).title for message in found] == ["one", "two"]
    assert read_eml(found[0]).text == "Hi\nFrom here\n>From there\nFrom no new mail"
    path.write_bytes(b"")
    assert list(mbox_messages(path)) == []
    path.write_bytes(b"no mailbox\n")
    with pytest.raises(InvalidInputError):
        list(mbox_messages(path))


def ole(tree: dict[str, object]) -> bytes:
    """A compound file of streams (bytes) and storages (dicts). Streams are padded to 4096 bytes by their caller."""
    entries: list[list[object]] = [["Root Entry", 5, -1, -1, b""]]

    def add(items: dict[str, object]) -> int:
        first = previous = -1
        for name, content in sorted(items.items(), key=lambda item: (len(item[0]), item[0].upper())):
            at = len(entries)
            entries.append(
                [name, 1 if isinstance(content, dict) else 2, -1, -1, content if isinstance(content, bytes) else b""]
            )
            if previous < 0:
                first = at
            else:
                entries[previous][2] = at
            previous = at
            if isinstance(content, dict):
                entries[at][3] = add(content)
        return first

    entries[0][3] = add(tree)
    sectors: list[bytes] = []
    chain: list[int] = []

    def store(data: bytes) -> int:
        start = len(sectors)
        for at in range(0, len(data), 512):
            sectors.append(data[at : at + 512].ljust(512, b"\0"))
            chain.append(len(sectors))
        chain[-1] = -2
        return start

    rows = b""
    for name, kind, right, child, data in entries:
        assert isinstance(name, str)
        assert isinstance(data, bytes)
        encoded = (name + "\0").encode("utf-16-le")
        start = store(data) if data else -2
        rows += struct.pack(
            "<64sHBBiii16sIQQiQ", encoded, len(encoded), kind, 1, -1, right, child, b"", 0, 0, 0, start, len(data)
        )
    directory = store(rows)
    fat_sectors = (len(sectors) + 8 + 127) // 128
    fat_start = len(sectors)
    fat = chain + [-3] * fat_sectors
    packed = struct.pack(f"<{len(fat)}i", *fat).ljust(fat_sectors * 512, b"\xff")
    head = struct.pack(
        "<8s16sHHHHH6sIIiIIiIiI",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"",
        0x3E,
        3,
        0xFFFE,
        9,
        6,
        b"",
        0,
        fat_sectors,
        directory,
        0,
        4096,
        -2,
        0,
        -2,
        0,
    )
    table = struct.pack("<109i", *(list(range(fat_start, fat_start + fat_sectors)) + [-1] * (109 - fat_sectors)))
    return head + table + b"".join(sectors) + packed


def properties(values: dict[int, object], header: int) -> dict[str, object]:
    """The streams of a storage of an Outlook message."""
    streams: dict[str, object] = {}
    rows = bytes(header)
    for pid, value in values.items():
        if isinstance(value, int):
            rows += struct.pack("<HHIq", 3, pid, 6, value)
            continue
        kind = 0x1F if isinstance(value, str) else 0x102
        data = value.encode("utf-16-le") if isinstance(value, str) else value
        assert isinstance(data, bytes)
        # Large enough to be stored as whole sectors; text is padded by zeros.
        data = data + (bytes(4096) if kind == 0x1F else b"")
        rows += struct.pack("<HHIII", kind, pid, 6, len(data), 0)
        streams[f"__substg1.0_{pid:04X}{kind:04X}"] = data
    streams["__properties_version1.0"] = rows.ljust(4096, b"\0")
    return streams


def msg(body: dict[int, object]) -> bytes:
    """An Outlook message with a recipient and an attachment."""
    return ole(
        {
            **properties(
                {
                    0x001A: "IPM.Note",
                    0x0037: "Umzug am Samstag",
                    0x0C1A: "Ada",
                    0x0C1F: "ada@example.org",
                    0x1035: "<2@x>",
                    **body,
                },
                32,
            ),
            "__recip_version1.0_#00000000": properties({0x3001: "Bo", 0x39FE: "bo@example.org"}, 8),
            "__attach_version1.0_#00000000": properties({0x3707: "..\\plan.bin", 0x3701: b"\x01" * 5000, 0x3705: 1}, 8),
            "__nameid_version1.0": properties({}, 0),
        }
    )


def test_outlook() -> None:
    file = read_msg(msg({0x1000: "Please help.\r\n\r\n\r\nAda"}))
    assert file.title == "Umzug am Samstag"
    assert file.text.startswith('From: "Ada" <ada@example.org>\nTo: Bo <bo@example.org>\n')
    assert file.text.endswith("\n\nPlease help.\n\nAda")
    assert file.metadata["to"] == ["bo@example.org"]
    assert file.metadata["message_id"] == "<2@x>"
    assert file.metadata["attachments"] == ["plan.bin"]
    assert msg_attachments(msg({})) == [("plan.bin", b"\x01" * 5000)]
    html = read_msg(msg({0x1013: b"<p>From <b>HTML</b></p>".ljust(4200), 0x3FDE: 65001}))
    assert html.text.endswith("From HTML")


def test_broken_outlook() -> None:
    data = msg({0x1000: "x"})
    for bad in (b"", b"text", data[:8], data[:600], data[: len(data) // 2], ole({"Workbook": bytes(5000)})):
        with pytest.raises(InvalidInputError):
            read_msg(bad)
    for at in range(0, len(data), len(data) // 80):
        with contextlib.suppress(InvalidInputError):
            read_msg(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
