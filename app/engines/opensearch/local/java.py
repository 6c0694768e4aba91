"""Finds an installed JDK that is new enough for OpenSearch and for building the plugin."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyblink.app.core.errors import UnavailableError

log = logging.getLogger(__name__)
LOWEST = 21
_HOMES = ("/usr/lib/jvm/*", "/opt/*jdk*", "/opt/java/*", "/Library/Java/JavaVirtualMachines/*/Contents/Home")


@dataclass(frozen=True, slots=True)
class Java:
    """A JDK: its home folder and its major version."""

    home: Path
    version: int

    @property
    def command(self) -> Path:
        """The `java` executable."""
        return self.home / "bin" / "java"


def version_of(home: Path) -> int | None:
    """The major version of the JDK in a folder; None if there is none."""
    if not (home / "bin" / "java").is_file():
        return None
    try:
        found = re.search(r'^JAVA_VERSION="(\d+)', (home / "release").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        said = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, check=False).stderr
        found = re.search(r'version "(\d+)', said)
    return int(found.group(1)) if found else None


def _installed() -> Iterator[Java]:
    homes = [path for pattern in _HOMES for path in Path("/").glob(pattern.lstrip("/"))]
    homes += list(Path.home().glob(".sdkman/candidates/java/*"))
    if on_path := shutil.which("java"):
        homes.append(Path(on_path).resolve().parents[1])
    for home in {path.resolve() for path in homes}:
        version = version_of(home)
        if version is not None:
            yield Java(home, version)


def find_java(lowest: int = LOWEST) -> Java:
    """`JAVA_HOME` if its version is at least `lowest`, else the newest installed JDK. Raises UnavailableError."""
    if wanted := os.environ.get("JAVA_HOME"):
        version = version_of(Path(wanted))
        if version is not None and version >= lowest:
            return Java(Path(wanted), version)
        log.warning("JAVA_HOME is %s (version %s); looking for %s or newer", wanted, version or "unknown", lowest)
    found = sorted(_installed(), key=lambda java: (java.version, str(java.home)))
    if not found or found[-1].version < lowest:
        raise UnavailableError(
            "no Java that is new enough was found",
            received=", ".join(f"{java.version} in {java.home}" for java in found) or "none",
            expected=f"a JDK of version {lowest} or newer, in JAVA_HOME or where the system installs them",
        )
    return found[-1]
