"""The error tree."""

from __future__ import annotations

from hyblink.app.core import errors


def test_every_public_error_is_listed_and_drawn() -> None:
    defined = {n for n, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert defined == set(errors.__all__)
    assert all(name in (errors.__doc__ or "") for name in errors.__all__)
