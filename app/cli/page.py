"""Starts the page: Streamlit in a process of its own, over a service's address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request

from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.process import package_folder

_UI = package_folder() / "ui" / "streamlit_app.py"
_START_S = 90.0


def free_port(wanted: int) -> int:
    """Return the wanted port if it is free, else any free port. Raises UnavailableError."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError("no free port on 127.0.0.1")


def wait_for(url: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until an address answers. Raises UnavailableError if it does not, or if the process behind it ends."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise UnavailableError(f"the process behind {url} ended", received=f"exit status {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise UnavailableError(f"{url} did not answer within {_START_S:g} s")


def start_page(address: str, port: int, **environment: str) -> subprocess.Popen[bytes]:
    """Start the page on 127.0.0.1, over the service at `address`. `environment`: more variables of the process."""
    options = {
        "server.headless": "true",
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.fileWatcherType": "none",
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": "false",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "streamlit", "run", str(_UI), *flags]
    return subprocess.Popen(
        command,
        env={**os.environ, "HYBLINK_API_URL": address, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
