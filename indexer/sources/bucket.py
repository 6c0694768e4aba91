"""Buckets of object stores as a source, through fsspec: `s3://bucket/folder` and whatever else it has a driver for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from hyblink.app.core.errors import InvalidInputError, NotFoundError, SourceUnavailableError
from hyblink.indexer.readers.walk import left_out, printable


class Bucket:
    """A `Remote`: the objects below `url`. Credentials and endpoints are those of the driver's environment.

    For S3: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, profiles and roles.
    """

    def __init__(self, url: str) -> None:
        """Raises InvalidInputError if no driver knows the address, ModuleNotFoundError if it is not installed."""
        from fsspec.core import url_to_fs
        from fsspec.registry import get_filesystem_class

        scheme = url.partition("://")[0]
        try:
            get_filesystem_class(scheme)
            self._files, self._root = url_to_fs(url)
        except ValueError as error:
            raise InvalidInputError(f"no such kind of bucket: {error}", received=url, expected="s3://…") from error
        except ImportError as error:
            raise InvalidInputError(f"the driver of {scheme}:// is not installed: {error}", received=url) from error
        self._url = url.rstrip("/")
        self._paths: dict[str, str] = {}

    @property
    def address(self) -> str:
        return self._url

    def files(self) -> Iterator[tuple[str, str]]:
        with _said(self._url):
            self._files.invalidate_cache()
            self._files.info(self._root)  # raises where a listing of nothing would do for what cannot be reached
            found: dict[str, Any] = self._files.find(self._root, detail=True)
        for path in sorted(found):
            inner = path.removeprefix(self._root).strip("/") or PurePosixPath(path).name
            if path.endswith("/"):
                continue  # the mark of an empty folder
            name = printable(inner.encode("utf-8", "surrogateescape"))
            self._paths[name] = path
            *folders, last = inner.split("/")
            why = next((why for part in folders if (why := left_out(part, is_folder=True))), "")
            yield name, why or left_out(last, is_folder=False)

    def fetch(self, name: str, path: Path) -> None:
        with _said(f"{self._url}/{name}"):
            self._files.get_file(self._paths[name], str(path))


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Errors of the driver as ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError("there is no such bucket, folder or object", received=what) from error
    except PermissionError as error:
        raise InvalidInputError(
            f"no access: {error}", received=what, expected="credentials that may read it"
        ) from error
    except Exception as error:  # drivers raise anything, also of the libraries below them
        raise SourceUnavailableError(
            f"the bucket does not answer: {type(error).__name__}: {error}", received=what
        ) from error
