"""Real brokers for tests: started on free ports, killed and started again with what they had kept."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from support.services import missing_service

_RABBIT = Path("/usr/lib/rabbitmq/bin")
_START_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Files:
    """No server: the filesystem broker. There is nothing to kill."""

    url = "filesystem"

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...


class _Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def _spawn(self, command: list[str], ready: Callable[[], bool], **environment: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {(self.folder / 'log').read_text()[-2000:]}")
            if ready():
                return
            time.sleep(0.2)
        raise RuntimeError(f"{command[0]} did not answer: {(self.folder / 'log').read_text()[-2000:]}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """As a power cut would: the server and all that it has started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    stop = kill


class Redis(_Server):
    """Keeps what it has acknowledged but for the last second."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--appendonly", "yes"]
        self._spawn([*command, "--dir", str(self.folder), "--save", ""], self._listens)


class RedisTls(Redis):
    """Encrypted only; asks for no certificate of its clients. `certificate` holds key and certificate."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        super().__init__(folder)
        self._certificate = certificate

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}/0"

    def start(self) -> None:
        made = str(self._certificate)
        self._spawn(
            [
                "redis-server", "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--tls-cert-file", made, "--tls-key-file", made, "--tls-ca-cert-file", made, "--tls-auth-clients", "no",
                "--dir", str(self.folder),
            ],
            self._listens,
        )  # fmt: skip


class Postgres(_Server):
    """A database of a user of its own: the server refuses to run as root."""

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def plain_url(self) -> str:
        """The address as the database's own tools have it."""
        return self.url.replace("+psycopg", "")

    def start(self) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not programs:
            missing_service("postgresql")
        self.folder.mkdir(parents=True)
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        if as_nobody:
            shutil.chown(self.folder, "nobody", "nogroup")
            for parent in self.folder.parents:
                if parent.owner() == "root" and parent.is_relative_to("/tmp"):
                    parent.chmod(parent.stat().st_mode | 0o111)
        data = str(self.folder / "data")
        made = [str(programs[-1] / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run([*as_nobody, *made], check=True, capture_output=True, cwd="/tmp")
        server = [str(programs[-1] / "postgres"), "-D", data, "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        self._spawn([*as_nobody, *server], self._listens)


class Rabbit(_Server):
    """A node of its own; durable queues and messages survive."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._distribution, self._epmd = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def _more(self) -> dict[str, str]:
        """More variables of its environment."""
        return {}

    def start(self) -> None:
        self._spawn(
            [str(_RABBIT / "rabbitmq-server")],
            self._listens,
            **self._more(),
            HOME=str(self.folder),
            RABBITMQ_NODENAME=f"hyblink{self.port}@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.port),
            RABBITMQ_DIST_PORT=str(self._distribution),
            ERL_EPMD_PORT=str(self._epmd),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_MNESIA_BASE=str(self.folder / "mnesia"),
            RABBITMQ_LOG_BASE=str(self.folder / "logs"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self.folder / "plugins"),
            RABBITMQ_PID_FILE=str(self.folder / "pid"),
            RABBITMQ_CONF_ENV_FILE=str(self.folder / "none.conf"),
        )


class RabbitTls(Rabbit):
    """Encrypted only. `certificate` holds key and certificate."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        super().__init__(folder)
        self._certificate = certificate

    @property
    def url(self) -> str:
        return f"amqps://guest:guest@localhost:{self.port}//"

    def _more(self) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "tls.conf"
        config.write_text(
            f"""listeners.tcp = none
listeners.ssl.default = {self.port}
ssl_options.cacertfile = {self._certificate}
ssl_options.certfile = {self._certificate}
ssl_options.keyfile = {self._certificate}
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
"""
        )
        return {"RABBITMQ_CONFIG_FILE": str(config)}


def missing(kind: str) -> str:
    """What of a kind of broker is not installed here; "" where it is."""
    if kind == "redis" and shutil.which("redis-server") is None:
        return "redis-server"
    if kind == "rabbitmq" and not (_RABBIT / "rabbitmq-server").exists():
        return "rabbitmq-server"
    return ""


def broker(kind: str, folder: Path) -> Files | Redis | Rabbit:
    """A broker of a kind: `filesystem`, `redis` or `rabbitmq`."""
    return {"filesystem": lambda _: Files(), "redis": Redis, "rabbitmq": Rabbit}[kind](folder)
