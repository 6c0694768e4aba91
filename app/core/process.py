"""Operating system processes: owner names with a liveness check, and commands that start modules as processes."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

_CLOCK_S = 2.0


def _host() -> str:
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{namespace.stat().st_ino if namespace.exists() else 0}"


def new_owner() -> str:
    """A new unique owner name for a lease or claim: host, process id, process start time and a random suffix."""
    import psutil

    return f"{_host()} {os.getpid()} {psutil.Process().create_time():.2f} {secrets.token_hex(4)}"


def has_died(owner: str) -> bool:
    """Whether an owner's process is known to be dead: it ran on this host and has ended. False if unknown."""
    import psutil

    try:
        host, pid, started, _ = owner.split(" ")
        process, began = int(pid), float(started)
    except ValueError:
        return False
    if host != _host():
        return False
    try:
        # The system clock may have been adjusted, which shifts reported start times: allow _CLOCK_S seconds.
        return bool(abs(psutil.Process(process).create_time() - began) > _CLOCK_S)
    except psutil.NoSuchProcess:
        return True


def package_folder() -> Path:
    """The folder of the installed package, which contains `app/`, `ui/` and `opensearch/`."""
    return Path(__file__).parents[2]  # links are not resolved: in a checkout hyblink/ contains links to the folders


def module_command(name: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this package. Modules in the current folder cannot shadow it (`-P`)."""
    return [sys.executable, "-P", "-m", name, *arguments]


def module_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for a new process: `environment`, by default this process's, with the package on
    PYTHONPATH.
    """
    known = dict(os.environ if environment is None else environment)
    path = os.pathsep.join(filter(None, [str(package_folder().parent), known.get("PYTHONPATH", "")]))
    return {**known, "PYTHONPATH": path}
