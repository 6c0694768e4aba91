"""Decodes HTML pages, whose encoding may be said in several places or nowhere."""

from __future__ import annotations

import codecs
import re

_SEARCHED = 4096
_META = re.compile(rb"<meta\b[^>]{0,500}?\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9_:.()-]{2,40})", re.IGNORECASE)
_XML = re.compile(rb"\s{0,20}<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([A-Za-z0-9_:.()-]{2,40})[\"']")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What browsers mean by these labels (the WHATWG Encoding Standard), where Python means less.
_LABELS = {
    "cp1252": "ascii us-ascii ansi_x3.4-1968 iso-8859-1 iso8859-1 iso_8859-1 iso88591 latin1 latin-1 l1 cp819 ibm819 "
    "x-cp1252 x-user-defined",
    "cp1254": "iso-8859-9 iso8859-9 iso_8859-9 iso88599 latin5 l5 x-cp1254",
    "cp874": "tis-620 iso-8859-11 iso8859-11 dos-874 windows-874",
    "gb18030": "gb2312 gb_2312 gb_2312-80 gbk x-gbk chinese csgb2312 iso-ir-58",
    "cp932": "shift_jis shift-jis sjis x-sjis ms_kanji csshiftjis windows-31j",
    "cp949": "euc-kr ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 korean windows-949",
    "big5hkscs": "big5 big5-hkscs cn-big5 x-x-big5 csbig5",
    "cp1250": "x-cp1250",
    "cp1251": "x-cp1251",
    "iso-8859-8": "iso-8859-8-i logical",
    "mac-roman": "macintosh mac x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    # A label that was read as ASCII cannot stand in a file of UTF-16.
    "utf-8": "utf8 unicode-1-1-utf-8 utf-16 utf-16le utf-16be unicode ucs-2",
}
_NOT_TEXT = frozenset(("utf-7", "idna", "punycode", "rot13", "unicode_escape", "raw_unicode_escape"))
_SURELY = 4
"""So many sequences of bytes that are valid UTF-8 are UTF-8, whatever the page says: by chance they would not be."""


def decoded(data: bytes) -> str:
    """The page as text, by its byte order mark, what it says of itself, as UTF-8, or as it looks. Always gives one."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    if wide := _wide(data[:_SEARCHED]):
        return data.decode(wide, "replace")
    said = _said(data[:_SEARCHED])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        if said in (None, "utf-8") or len(data) - len(text) >= _SURELY:
            return text
    if said is not None and (said != "utf-8" or _is_nearly(data)):
        return data.decode(said, "replace")
    return _guessed(data)


def _said(start: bytes) -> str | None:
    """The name of Python's codec for the encoding that the page tells, or None."""
    match = _XML.match(start) or _META.search(start)
    if match is None:
        return None
    label = match[1].decode("ascii").lower()
    name = next((codec for codec, labels in _LABELS.items() if label in labels.split()), label)
    try:
        found = codecs.lookup(name)
        "".encode(found.name)  # a codec of bytes is none of text
        b"".decode(found.name)
    except (LookupError, TypeError, ValueError):
        return None
    return None if found.name in _NOT_TEXT else found.name


def _wide(start: bytes) -> str | None:
    """UTF-16 without a mark: half of the bytes of its tags are 0."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if half < 8:
        return None
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * half and odd < 0.05 * half else None


def _is_nearly(data: bytes) -> bool:
    """True if the data is UTF-8 but for a few bytes, such as a page that is cut off."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return bad <= 3 or 10 * bad < sum(1 for character in text if character > "\x7f")


def _guessed(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[: 1 << 18]).best()
    try:
        return data.decode(best.encoding if best is not None else "cp1252", "replace")
    except (LookupError, UnicodeError):
        return data.decode("cp1252", "replace")
