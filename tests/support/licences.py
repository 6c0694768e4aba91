"""`make lint`: every installed package has a permissive licence, the MPL or the LGPL."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import distributions

_ACCEPTED = re.compile(
    r"\b(?:MIT|MIT-0|MIT-CMU|0?BSD|Apache|PSF|Python Software Foundation|CNRI|ISC|ISCL|MPL|Mozilla|LGPL|Lesser|Zlib|"
    r"CC0|Public Domain|Unlicense|BSL|HPND|DFSG)(?:\b|(?=[-\d]))|BSD|Apache2",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"\bA?GPL|GNU (?:Affero )?General Public|SSPL|Business Source|Commons Clause|Proprietary|CC[- ]BY[- ]NC",
    re.IGNORECASE,
)
_LESSER = re.compile(r"LGPL|Lesser", re.IGNORECASE)
EXCEPTIONS = {
    "docutils": "the GPL is that of its mode for Emacs, which is not installed",
    "hyblink": "this project: Apache-2.0",
}
_NVIDIA = re.compile(r"(?:nvidia|cuda)-[\w-]+")
"""Libraries that torch asks for on Linux. The extra `train` brings them; we hand out none of them."""


def problem(name: str, stated: Iterable[str]) -> str:
    """What is wrong with the licences that a package states; "" if nothing is.

    >>> problem("a", ["MIT"]), problem("b", ["GNU Lesser General Public License v3"]), problem("c", ["GPL-3.0-only"])
    ('', '', 'c: GPL-3.0-only')
    """
    said = [text for text in stated if text.strip()]
    if name.lower() in EXCEPTIONS or _NVIDIA.fullmatch(name.lower()):
        return ""
    refused = [text for text in said if _REFUSED.search(text) and not _LESSER.search(text)]
    if refused and not any(" OR " in text and _ACCEPTED.search(text) for text in said):
        return f"{name}: {', '.join(refused)}"
    if not any(_ACCEPTED.search(text) for text in said):
        return f"{name}: {', '.join(said) or 'states no licence'}"
    return ""


def problems() -> tuple[int, list[str]]:
    """(number of installed packages, what is wrong with their licences)."""
    found: dict[str, str] = {}
    for one in distributions():
        about = one.metadata
        classifiers = [
            text.split(" :: ")[-1] for text in about.get_all("Classifier") or [] if text.startswith("License")
        ]
        plain = str(about.get("License") or "").strip().split("\n")[0]
        expression = str(about.get("License-Expression") or "")
        found[about["Name"]] = problem(about["Name"], [expression] if expression else [*classifiers, plain])
    return len(found), sorted(text for text in found.values() if text)


if __name__ == "__main__":
    number, wrong = problems()
    if wrong:
        sys.exit("licences that are not permissive, MPL or LGPL:\n  " + "\n  ".join(wrong))
    sys.stdout.write(f"licences of {number} packages: permissive, MPL or LGPL\n")
