"""`hyblink node`: a local OpenSearch cluster for development and tests, without Docker."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import answer, note, reported, say
from hyblink.app.cli.options import JsonOption

node_cli = typer.Typer(
    help="A local OpenSearch cluster (loopback, no security): start, stop, status, logs, remove.", no_args_is_help=True
)
NameOption = Annotated[str, typer.Option("--name", "-n", help="Name of the cluster.")]


@node_cli.command()
def start(
    name: NameOption = "local",
    nodes: Annotated[int, typer.Option(help="Number of nodes, 1 to 9.")] = 1,
    version: Annotated[
        str, typer.Option(help="OpenSearch version: 3.8.0, or 3.6.0 with the k-NN and neural-search plugins.")
    ] = "3.8.0",
    port: Annotated[int, typer.Option(help="HTTP port of the first node; 0 chooses free ports.")] = 9200,
    heap_mb: Annotated[int, typer.Option(help="Java heap of each node, in MB.")] = 1024,
    agent: Annotated[bool, typer.Option("--agent", help="Run with OpenSearch's Java agent (its sandbox).")] = False,
    stock: Annotated[bool, typer.Option("--stock", help="Do not install hyblink's own plugin.")] = False,
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A plugin to install, as zip or folder; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start the cluster and wait until its health is green. The first time, Maven fetches the server."""
    with reported(as_json):
        from hyblink.app.engines.opensearch.local.cluster import Cluster, ClusterOptions

        options = ClusterOptions(version, nodes, port, heap_mb, agent, not stock, tuple(plugin or ()))
        if not as_json:
            note(f"starting OpenSearch {version} ({nodes} node{'s' if nodes > 1 else ''})")
        state = Cluster(name).start(options)
        lines = [
            f"{state.url} is green; stop it with: hyblink node stop --name {name}",
            "Use it with:",
            f"  export HYBLINK_ENGINE=opensearch HYBLINK_OPENSEARCH__HOSTS={state.url}",
        ]
        answer(asdict(state), as_json, lines)


@node_cli.command()
def stop(name: NameOption = "local", as_json: JsonOption = False) -> None:
    """Stop the cluster and keep its data."""
    with reported(as_json):
        from hyblink.app.engines.opensearch.local.cluster import Cluster

        stopped = Cluster(name).stop()
        answer({"stopped": stopped}, as_json, [f"{stopped} stopped" if stopped else "not running"])


@node_cli.command()
def remove(name: NameOption = "local", as_json: JsonOption = False) -> None:
    """Stop the cluster and delete its data."""
    with reported(as_json):
        from hyblink.app.engines.opensearch.local.cluster import Cluster

        Cluster(name).remove()
        answer({"removed": name}, as_json, ["removed"])


@node_cli.command()
def status(name: NameOption = "local", as_json: JsonOption = False) -> None:
    """Show the cluster's processes, addresses and health. Exits with 1 if it is not running or not green."""
    with reported(as_json):
        from hyblink.app.engines.opensearch.local.cluster import Cluster

        cluster = Cluster(name)
        state = cluster.state()
        running = [node.name for node in state.nodes if node.process()] if state else []
        health = cluster.health() if running else None
        lines = ["not started yet"]
        if state is not None:
            lines = [
                f"{node.name}  {url}  pid {node.pid}  {'running' if node.name in running else 'stopped'}"
                for node, url in zip(state.nodes, state.urls, strict=True)
            ]
            lines.append(f"OpenSearch {state.version}: {health['status'] if health else 'no answer'}")
        value = {"state": asdict(state) if state else None, "running": running, "health": health}
        answer(value, as_json, lines)
        if not health or health["status"] != "green":
            raise typer.Exit(1)


@node_cli.command()
def logs(
    name: NameOption = "local",
    node: Annotated[str, typer.Option(help="Name of the node.")] = "node1",
    lines: Annotated[int, typer.Option(help="Number of lines to print.")] = 50,
) -> None:
    """Print the last lines of a node's log."""
    with reported(False):
        from hyblink.app.engines.opensearch.local.cluster import Cluster

        say(Cluster(name).tail(node, lines))
