"""A local cluster of OpenSearch processes for development and tests: start, status, stop.

It listens on the loopback address only and has no security plugin, so it must not be exposed to others.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import httpx
import psutil

from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from hyblink.app.core.manifest import read_json, write_json
from hyblink.app.engines.opensearch.local.assemble import assemble, build_plugin
from hyblink.app.engines.opensearch.local.java import Java, find_java

HOST = "127.0.0.1"
_STATE = "cluster.json"
_STOP_S = 30.0
_children: list[subprocess.Popen[bytes]] = []
"""The started processes. The references are kept because the processes outlive the call that starts them."""
_LOG = """status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = {logs}/node.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d{{ISO8601}}][%-5p][%-25c{{1.}}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


@dataclass(frozen=True, slots=True)
class NodeState:
    """One process of a cluster."""

    name: str
    folder: str
    http_port: int
    transport_port: int
    pid: int
    started: float
    """The start time of the process, which tells it from a later process with the same id."""

    def process(self) -> psutil.Process | None:
        """The running process; None if it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            if same and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The stored state of a cluster that was started."""

    name: str
    version: str
    nodes: tuple[NodeState, ...]

    @property
    def url(self) -> str:
        """The address of the first node."""
        return f"http://{HOST}:{self.nodes[0].http_port}"

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all nodes."""
        return tuple(f"http://{HOST}:{node.http_port}" for node in self.nodes)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The options for starting a cluster. Nodes listen on `port`, `port + 1` and so on; 0 takes free ports."""

    version: str = "3.8.0"
    nodes: int = 1
    port: int = 0
    heap_mb: int = 1024
    agent: bool = False
    """Run with OpenSearch's Java agent, which sandboxes plugins as in an ordinary installation."""
    hyblink_plugin: bool = True
    """Build and install the hyblink plugin. Without it the engine uses standard queries."""
    plugins: tuple[Path, ...] = ()
    """Further plugins to install: zips or unpacked folders."""
    settings: tuple[tuple[str, str], ...] = ()
    """Settings (name, value) of opensearch.yml to add or replace."""


def clusters_folder() -> Path:
    """The folder of all local clusters: `HYBLINK_NODE_DIR` or a default.

    For root the default is a path that the user `nobody`, who runs the nodes, can read.
    """
    if wanted := os.environ.get("HYBLINK_NODE_DIR"):
        return Path(wanted)
    if os.geteuid() == 0:
        return Path("/var/lib/hyblink/node")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "hyblink" / "node"


class Cluster:
    """The local cluster of this name, running or not."""

    def __init__(self, name: str = "local", folder: Path | None = None) -> None:
        if not name.replace("-", "").isalnum():
            raise InvalidInputError("bad cluster name", received=name, expected="letters, digits and hyphens")
        self.name = name
        self.folder = (folder or clusters_folder()) / name

    def state(self) -> ClusterState | None:
        """The state of the last start; None if it was never started."""
        path = self.folder / _STATE
        if not path.exists():
            return None
        found = read_json(path)
        return ClusterState(found["name"], found["version"], tuple(NodeState(**node) for node in found["nodes"]))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self.folder / ".lock", timeout=5):
                yield
        except filelock.Timeout:
            raise ConflictError(
                f"the cluster {self.name!r} is being started or stopped", expected="try again"
            ) from None

    def start(self, options: ClusterOptions, *, wait_s: float = 120.0) -> ClusterState:
        """Start every node and wait at most `wait_s` seconds until the cluster is green.

        Raises ConflictError if it is running or holds other data, and UnavailableError, with the end of the log, if a
        node ends or the cluster does not become green.
        """
        if not 1 <= options.nodes <= 9:
            raise InvalidInputError("bad number of nodes", received=options.nodes, expected="1 to 9")
        with self._locked():
            if (state := self.state()) and any(node.process() for node in state.nodes):
                raise ConflictError(f"the cluster {self.name!r} is running at {state.url}", expected="stop it first")
            if state and (len(state.nodes), state.version) != (options.nodes, options.version):
                raise ConflictError(
                    f"the cluster {self.name!r} holds the data of another",
                    received=f"{options.nodes} nodes of version {options.version}",
                    expected=f"{len(state.nodes)} nodes of {state.version}, another name, or remove it first",
                )
            if state is None:
                for node in self.folder.glob("node*"):
                    shutil.rmtree(node)  # left by a start that failed
            java = find_java()
            home = assemble(options.version, java)
            plugins = options.plugins
            if options.hyblink_plugin:
                plugins = (build_plugin(options.version, java), *plugins)
            ports = _ports(options)
            nodes: list[NodeState] = []
            try:
                for number in range(options.nodes):
                    folder = self.folder / f"node{number + 1}"
                    _prepare(folder, home, plugins)
                    _configure(folder, self.name, number, ports, options, new=state is None)
                    process = _launch(folder, home, java, options)
                    http, transport = ports[number]
                    began = psutil.Process(process.pid).create_time()
                    nodes.append(NodeState(f"node{number + 1}", str(folder), http, transport, process.pid, began))
                    write_json(
                        self.folder / _STATE,
                        asdict(ClusterState(self.name, options.version, tuple(nodes))),
                    )
                started = ClusterState(self.name, options.version, tuple(nodes))
                self._wait(started, wait_s)
            except BaseException:
                _stop(nodes, 5.0)
                if state is None or len(nodes) < options.nodes:
                    (self.folder / _STATE).unlink(missing_ok=True)
                raise
            return started

    def restart_node(self, name: str, *, wait_s: float = 120.0) -> None:
        """Start a stopped node of a running cluster again, with its old configuration."""
        with self._locked():
            state = self.state()
            if state is None:
                raise NotFoundError("no such cluster", received=self.name)
            node = next((item for item in state.nodes if item.name == name), None)
            if node is None:
                raise NotFoundError("no such node", received=name, expected=", ".join(n.name for n in state.nodes))
            if node.process():
                raise ConflictError(f"the node {name!r} is running")
            command = read_json(Path(node.folder) / "command.json")["command"]
            process = _spawn(Path(node.folder), command)
            began = psutil.Process(process.pid).create_time()
            again = NodeState(name, node.folder, node.http_port, node.transport_port, process.pid, began)
            nodes = tuple(again if item.name == name else item for item in state.nodes)
            write_json(self.folder / _STATE, asdict(ClusterState(state.name, state.version, nodes)))
            self._wait(ClusterState(state.name, state.version, nodes), wait_s)

    def _wait(self, state: ClusterState, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        wanted = {"wait_for_status": "green", "wait_for_nodes": f">={len(state.nodes)}", "timeout": "1s"}
        last = "no answer yet"
        while time.monotonic() < until:
            for node in state.nodes:
                if node.process() is None:
                    raise UnavailableError(f"the node {node.name} ended while it started:\n{self.tail(node.name)}")
            try:
                answer = httpx.get(f"{state.url}/_cluster/health", params=wanted, timeout=5.0)
                last = answer.text
                if answer.status_code == httpx.codes.OK and not answer.json()["timed_out"]:
                    return
            except httpx.HTTPError as error:
                last = str(error)
            time.sleep(0.1)
        raise UnavailableError(f"the cluster was not green after {wait_s:g} s: {last}\n{self.tail('node1')}")

    def tail(self, node: str = "node1", lines: int = 30) -> str:
        """The last lines of a node's log and of its standard output."""
        found = []
        for path in (self.folder / node / "logs" / "node.log", self.folder / node / "logs" / "stdout.log"):
            if path.exists():
                found += path.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(found)

    def stop(self) -> int:
        """Stop every node. Returns how many were running."""
        with self._locked():
            state = self.state()
            return _stop(list(state.nodes), _STOP_S) if state else 0

    def remove(self) -> None:
        """Stop the cluster and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def health(self) -> dict[str, object] | None:
        """The response of `_cluster/health`; None if no node answers."""
        state = self.state()
        for url in state.urls if state else ():
            with contextlib.suppress(httpx.HTTPError, json.JSONDecodeError):
                found: dict[str, object] = httpx.get(f"{url}/_cluster/health", timeout=5.0).json()
                return found
        return None


def _ports(options: ClusterOptions) -> list[tuple[int, int]]:
    """A free (HTTP, transport) pair for each node."""
    held: list[socket.socket] = []
    try:
        chosen = []
        for number in range(options.nodes):
            pair = []
            for wanted in (options.port + number if options.port else 0, 0):
                probe = socket.socket()
                held.append(probe)
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, wanted))
                except OSError as error:
                    raise ConflictError(f"port {wanted} is taken: {error}", expected="another port, or 0") from error
                pair.append(probe.getsockname()[1])
            chosen.append((pair[0], pair[1]))
        return chosen
    finally:
        for item in held:
            item.close()


def _owner() -> tuple[int, int] | None:
    """The (user, group) id to run nodes as: `nobody` if this is root, because OpenSearch refuses root; else None."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid


def _prepare(folder: Path, home: Path, plugins: tuple[Path, ...]) -> None:
    for name in ("home", "config"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("home/bin", "home/plugins", "config", "data", "logs", "tmp", "../snapshots"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("lib", "modules"):
        (folder / "home" / name).symlink_to(home / name)
    for plugin in [*sorted((home / "plugins").iterdir()), *plugins]:
        if plugin.is_dir():
            shutil.copytree(plugin, folder / "home" / "plugins" / plugin.name)
        else:
            shutil.unpack_archive(plugin, folder / "home" / "plugins" / plugin.stem, "zip")
    for path in (folder / "logs").glob("*.log"):
        path.unlink()


def _configure(
    folder: Path, cluster: str, number: int, ports: list[tuple[int, int]], options: ClusterOptions, *, new: bool
) -> None:
    http, transport = ports[number]
    settings = {
        "cluster.name": f"hyblink-{cluster}",
        "node.name": f"node{number + 1}",
        "path.data": folder / "data",
        "path.logs": folder / "logs",
        "path.repo": json.dumps([str(folder.parent / "snapshots")]),
        "network.host": HOST,
        "http.port": http,
        "transport.port": transport,
        # A developer's disk may be nearly full. Tests of the disk watermarks override this.
        "cluster.routing.allocation.disk.threshold_enabled": "false",
        "action.auto_create_index": "false",
    }
    if len(ports) == 1:
        settings["discovery.type"] = "single-node"
    else:
        settings["discovery.seed_hosts"] = json.dumps([f"{HOST}:{port}" for _, port in ports])
        if new:
            settings["cluster.initial_cluster_manager_nodes"] = json.dumps([f"node{n + 1}" for n in range(len(ports))])
        settings["cluster.fault_detection.follower_check.timeout"] = "3s"
        settings["cluster.fault_detection.leader_check.timeout"] = "3s"
    settings |= dict(options.settings)
    (folder / "config" / "opensearch.yml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    (folder / "config" / "log4j2.properties").write_text(_LOG.format(logs=folder / "logs"))


def _launch(folder: Path, home: Path, java: Java, options: ClusterOptions) -> subprocess.Popen[bytes]:
    jars = sorted((home / "lib").glob("*.jar"))
    # A class-data archive (CDS) shared by all clusters. The first process to stop writes it; later starts take half
    # the time.
    archive = home.parent / "archive" / f"{home.name}-java{java.version}.jsa"
    archive.parent.mkdir(exist_ok=True)
    first = ["-XX:+AutoCreateSharedArchive", f"-XX:SharedArchiveFile={archive}"]
    if options.agent:
        jars = [jar for jar in jars if not jar.name.startswith("opensearch-agent-bootstrap")]
        (jar,) = (home / "agent").glob(f"opensearch-agent-{options.version}.jar")
        first = [f"-javaagent:{jar}"]  # no class-data archive can be made under an agent
    command = [
        str(java.command), f"-Xms{options.heap_mb}m", f"-Xmx{options.heap_mb}m", "-XX:+UseG1GC", "-Xss1m",
        *first, "-Xlog:disable",
        "-Dfile.encoding=UTF-8", "-Djava.awt.headless=true", "-Dlog4j.shutdownHookEnabled=false",
        "-Dlog4j2.disable.jmx=true", "-Dopensearch.networkaddress.cache.ttl=60", "-Dio.netty.noUnsafe=true",
        "--add-modules=jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Dopensearch.path.home={folder / 'home'}", f"-Dopensearch.path.conf={folder / 'config'}",
        "-Dopensearch.distribution.type=tar", "-Dopensearch.bundled_jdk=false",
        "-cp", ":".join(map(str, jars)), "org.opensearch.bootstrap.OpenSearch",
    ]  # fmt: skip
    if owner := _owner():
        os.chown(archive.parent, *owner)
    write_json(folder / "command.json", {"command": command})
    return _spawn(folder, command)


def _spawn(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    owner = _owner()
    if owner:
        for path in (folder.parent, folder.parent / "snapshots", *folder.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)
        os.chown(folder, *owner)
        _check_readable(folder)
    with (folder / "logs" / "stdout.log").open("ab") as out:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
            **({"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}),  # type: ignore[call-overload]
        )
        _children.append(process)
        return process


def _check_readable(folder: Path) -> None:
    for path in (folder, *folder.parents):
        if not path.stat().st_mode & 0o001:
            raise UnavailableError(
                f"the node runs as another user than root, who may not enter {path}",
                expected="HYBLINK_NODE_DIR naming a folder that everybody may enter",
            )


def _stop(nodes: list[NodeState], wait_s: float) -> int:
    running = [process for node in nodes if (process := node.process())]
    for process in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)  # a paused process would not handle SIGTERM
            process.terminate()
    _, left = psutil.wait_procs(running, timeout=wait_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
    _children[:] = [child for child in _children if child.poll() is None]
    return len(running)
