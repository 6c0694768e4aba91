"""compose.yaml without a Docker engine: contexts, commands, settings, health checks, volumes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from hyblink.app.cli.main import cli
from hyblink.app.core.settings import Settings
from hyblink.app.jobs.celery_jobs import uses_celery

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
_KNOWN = {
    "build", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports", "profiles", "restart",
    "stop_grace_period", "ulimits", "volumes",
}  # fmt: skip


def parsed(command: list[str]) -> None:
    """The command line is one that our CLI takes: known commands, known options, good values."""
    found: Any = typer.main.get_command(cli)
    words = command[1:]
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_whole(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= _KNOWN, "no key that compose does not know"
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    for other, wanted in service.get("depends_on", {}).items():
        assert wanted == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "nothing is open to others by itself"
    if "build" in service:
        folder = ROOT / service["build"]["context"]
        assert (folder / service["build"].get("dockerfile", "Dockerfile")).is_file()


@pytest.mark.parametrize("name", [name for name, one in SERVICES.items() if one.get("command", [""])[0] == "hyblink"])
def test_our_commands_and_settings_are_good(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed(SERVICES[name]["command"])
    for variable, value in SERVICES[name]["environment"].items():
        assert variable.startswith("HYBLINK_")
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value))  # the default of a variable
    settings = Settings()
    assert settings.engine == "opensearch"
    assert settings.opensearch.hosts == ("http://opensearch:9200",)
    assert uses_celery(settings)
    assert settings.jobs.workers == 0
    for section, key in (
        one.removeprefix("HYBLINK_").lower().split("__") for one in SERVICES[name]["environment"] if "__" in one
    ):
        assert key in type(getattr(settings, section)).model_fields


def test_the_checks_can_fail() -> None:
    for bad in (
        ["hyblink", "serf"],
        ["hyblink", "serve", "--prot", "1"],
        ["hyblink", "worker", "--concurrency", "none"],
    ):
        with pytest.raises(Exception, match=r"serf|prot|valid integer"):
            parsed(bad)


def test_the_readme_of_compose_is_good_too() -> None:
    commands = re.findall(r"docker compose run --rm api (hyblink .*?)  ", (ROOT / "compose.yaml").read_text())
    assert commands
    for command in commands:
        parsed(shlex.split(command))


def test_the_image_has_what_its_dockerfile_copies() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "app" / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for sources in copied:
        for source in sources.replace("${LOCK}", "requirements.lock").split():
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored, source
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= {source for sources in copied for source in sources.split()}
