"""Reads the text in pictures by Tesseract, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.blocks import clean
from hyblink.indexer.readers.format import WholeFile

LANGUAGES = "OCR_LANGUAGES"
"""The variable of the reading process that names the languages, such as `eng+deu`."""
_DPI, _POINTS = 300, 72
_MOST_PIXELS = 40_000_000
_PICTURE_S = 300.0


def check_installed() -> None:
    """Raise InvalidInputError if Tesseract is not installed."""
    if shutil.which("tesseract") is None:
        raise InvalidInputError(
            "--ocr needs Tesseract, which is not installed",
            received="no program `tesseract`",
            expected="the system's package, such as `apt install tesseract-ocr` or `brew install tesseract`",
        )


def read_picture(data: bytes) -> WholeFile:
    """The text in a picture (PNG, JPEG, TIFF, WebP, BMP). Raises InvalidInputError if it cannot be read."""
    return WholeFile("", clean(_text_in(data)))


def text_of_page(page: Any) -> str:
    """The text in a page of an open PDF, as it looks at 300 dots per inch."""
    width, height = page.get_size()
    scale = min(_DPI / _POINTS, (_MOST_PIXELS / max(1.0, width * height)) ** 0.5)
    with closing(page.render(scale=scale, grayscale=True)) as bitmap:
        pixels = bitmap.to_numpy()
        if pixels.ndim == 3:
            pixels = pixels[:, :, 0]
        rows, columns = pixels.shape
        return clean(_text_in(b"P5 %d %d 255\n" % (columns, rows) + pixels.tobytes()))


def _text_in(picture: bytes) -> str:
    languages = os.environ.get(LANGUAGES, "")
    command = ["tesseract", "stdin", "stdout", *(["-l", languages] if languages else [])]
    try:
        done = subprocess.run(command, input=picture, capture_output=True, timeout=_PICTURE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InvalidInputError("reading a picture takes too long", expected=f"at most {_PICTURE_S:g} s") from error
    except OSError as error:
        raise InvalidInputError(f"Tesseract cannot be run: {error}") from error
    if done.returncode:
        said = next(_said(done.stderr), f"exit status {done.returncode}")
        raise InvalidInputError(f"the picture cannot be read: {said}", expected="a picture that Tesseract reads")
    return done.stdout.decode("utf-8", "replace").replace("\f", "\n")


def _said(errors: bytes) -> Iterator[str]:
    for line in errors.decode("utf-8", "replace").splitlines():
        if "error" in line.lower() or "fail" in line.lower():
            yield line.strip()
