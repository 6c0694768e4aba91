"""The licences of what is installed."""

from __future__ import annotations

import pytest
from support.licences import problem, problems


def test_every_installed_package_may_be_used() -> None:
    number, wrong = problems()
    assert number > 100
    assert wrong == []


@pytest.mark.parametrize(
    ("stated", "is_wrong"),
    [
        (["MIT"], False), (["BSD-3-Clause AND 0BSD"], False), (["Apache2.0"], False), (["MPL-2.0"], False),
        (["LGPL-3.0-only"], False), (["Mozilla Public License 2.0 (MPL 2.0)"], False), (["GPL-2.0 OR MIT"], False),
        (["GPL-3.0-or-later"], True), (["GNU Affero General Public License v3"], True), (["AGPL"], True), ([], True),
        (["MIT", "GNU General Public License (GPL)"], True), (["Proprietary"], True), (["see the file"], True),
    ],
)  # fmt: skip
def test_what_is_accepted(stated: list[str], is_wrong: bool) -> None:
    assert bool(problem("some-package", stated)) == is_wrong
