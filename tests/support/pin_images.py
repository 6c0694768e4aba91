"""Writes the digests of the container images that compose files and Dockerfiles name: `make pin-images`.

A digest names exactly one image, where a tag may be moved. An image of a registry that cannot be reached stays as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
FILES = ("compose.yaml", "compose.laptop.yaml", "app/Dockerfile", "opensearch/Dockerfile")
_NAMED = re.compile(
    r"(?P<before>^\s*image:\s+|^FROM\s+)(?P<name>[a-z0-9./_-]+):(?P<tag>[\w.${}-]+)(?P<digest>@sha256:[0-9a-f]{64})?",
    re.MULTILINE,
)
_ARGUMENT = re.compile(r"^ARG (\w+)=(\S+)$", re.MULTILINE)
_KINDS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
    )
)  # fmt: skip
OWN = frozenset({"hyblink", "hyblink-train", "hyblink-gpu"})


def named(text: str) -> list[tuple[str, str]]:
    """(name, tag) of each foreign image in a file, in order; arguments of a Dockerfile are filled in."""
    arguments = dict(_ARGUMENT.findall(text))
    found = []
    for item in _NAMED.finditer(text):
        tag = re.sub(r"\$\{(\w+)\}", lambda name: arguments.get(name[1], name[0]), item["tag"])
        if item["name"] not in OWN:
            found.append((item["name"], tag))
    return found


def pinned(text: str, digests: dict[tuple[str, str], str]) -> str:
    """The text with the known digests behind their tags."""
    arguments = dict(_ARGUMENT.findall(text))

    def written(item: re.Match[str]) -> str:
        tag = re.sub(r"\$\{(\w+)\}", lambda name: arguments.get(name[1], name[0]), item["tag"])
        digest = digests.get((item["name"], tag))
        return item[0] if digest is None else f"{item['before']}{item['name']}:{item['tag']}@{digest}"

    return _NAMED.sub(written, text)


def digest_of(name: str, tag: str, registry: str, client: httpx.Client) -> str:
    """The digest of an image in a registry. Raises httpx.HTTPError."""
    path = name if "/" in name else f"library/{name}"
    address = f"{registry}/v2/{path}/manifests/{tag}"
    headers = {"Accept": _KINDS}
    answer = client.head(address, headers=headers)
    if answer.status_code == 401:
        told = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers.get("www-authenticate", "")))
        asked = {"service": told.get("service", ""), "scope": told.get("scope", f"repository:{path}:pull")}
        token = client.get(told["realm"], params=asked).raise_for_status().json()["token"]
        answer = client.head(address, headers={**headers, "Authorization": f"Bearer {token}"})
    answer.raise_for_status()
    return str(answer.headers["docker-content-digest"])


def main(arguments: Sequence[str] = tuple(sys.argv[1:]), root: Path = ROOT) -> int:
    """Pin all images; returns 1 if a registry could not be asked. The argument is the registry's address."""
    registry = arguments[0] if arguments else "https://registry-1.docker.io"
    texts = {path: (root / path).read_text() for path in FILES if (root / path).exists()}
    digests: dict[tuple[str, str], str] = {}
    failed = False
    with httpx.Client(timeout=20, follow_redirects=True) as client:
        for name, tag in dict.fromkeys(image for text in texts.values() for image in named(text)):
            try:
                digests[name, tag] = digest_of(name, tag, registry, client)
                print(f"{name}:{tag}  {digests[name, tag]}")
            except (httpx.HTTPError, KeyError) as error:
                failed = True
                print(f"{name}:{tag}  stays as it is: {type(error).__name__}: {error}")
    for path, text in texts.items():
        (root / path).write_text(pinned(text, digests))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
