"""A cluster that is away is said in a line, not in tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.brokers import free_port


def test_a_command_without_its_cluster_prints_two_lines(tmp_path: Path) -> None:
    host = f"http://127.0.0.1:{free_port()}"
    environment = {
        **os.environ, "HYBLINK_ENGINE": "opensearch", "HYBLINK_OPENSEARCH__HOSTS": host, "HYBLINK_OPENSEARCH__RETRIES": "2",
        "HYBLINK_DATA_DIR": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "hyblink.app.cli.main", "search", "x"],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    trying, error = done.stderr.splitlines()
    assert f"OpenSearch at {host} does not answer ([Errno 111] Connection refused): trying again" in trying
    assert error.startswith("error (unavailable): OpenSearch did not answer: [Errno 111] Connection refused; expected")
