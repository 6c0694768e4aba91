"""Processes: names that tell whether one is dead, commands for new ones, and where the installed package lies."""

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
    """A name for somebody in this process: host, process id, the moment it started, and a number of its own."""
    import psutil

    return f"{_host()} {os.getpid()} {psutil.Process().create_time():.2f} {secrets.token_hex(4)}"


def has_died(owner: str) -> bool:
    """Whether the process of an owner is known to be gone: it ran on this host and does not any more."""
    import psutil

    try:
        host, pid, started, _ = owner.split(" ")
        process, began = int(pid), float(started)
    except ValueError:
        return False
    if host != _host():
        return False
    try:
        # Clocks are set now and then, and with them the moments that processes are said to have started.
        return bool(abs(psutil.Process(process).create_time() - began) > _CLOCK_S)
    except psutil.NoSuchProcess:
        return True


def package_folder() -> Path:
    """The folder of the installed package; `app/`, `ui/` and `opensearch/` are in it."""
    return Path(__file__).parents[2]  # not resolved: in a checkout hyblink/ holds links to the folders


def module_command(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules in a process of its own, whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", name, *arguments]


def module_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables (by default this process's) with which a new process finds the package."""
    known = dict(os.environ if environment is None else environment)
    path = os.pathsep.join(filter(None, [str(package_folder().parent), known.get("PYTHONPATH", "")]))
    return {**known, "PYTHONPATH": path}
