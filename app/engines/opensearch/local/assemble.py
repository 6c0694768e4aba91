"""Assembles an OpenSearch installation folder from artifacts that Maven downloads."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.process import package_folder
from hyblink.app.engines.opensearch.local.java import Java

VERSIONS = ("3.8.0", "3.6.0")
POM = package_folder() / "opensearch" / "node" / "pom.xml"
PLUGIN = POM.parents[1] / "plugin"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_MODULES = "org.opensearch.plugin:"
_AGENT = "org.opensearch:opensearch-agent"
_LAYOUT = 1
"""The version of the folder layout. Increase it when the layout changes, so that folders are assembled again."""

# Module → the module that it extends (`extended.plugins`).
_EXTENDS = dict.fromkeys(("analysis-common", "ingest-common", "search-pipeline-common"), "lang-painless")
_LINE = re.compile(r"^(?P<indent>[ |+\\-]*)\(?(?P<coordinates>[\w.\-]+(?::[\w.\-]+)+)")


@dataclass(slots=True)
class Tree:
    """A Maven dependency graph: the direct dependencies and files of each artifact, by `group:artifact`."""

    roots: list[str] = field(default_factory=list)
    children: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def closure(self, name: str, without: frozenset[str] = frozenset()) -> set[str]:
        """An artifact and its transitive dependencies, except for `without` and what only these need."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            artifact = waiting.pop()
            if artifact not in found and artifact not in without:
                found.add(artifact)
                waiting += self.children[artifact]
        return found


def parse_tree(text: str) -> Tree:
    """Parse the output of Maven's verbose dependency tree, which lists an artifact's children at one occurrence only.

    >>> lines = ["me:me:pom:1", "+- a:b:jar:1:compile", "|  +- c:d:jar:x86:2:runtime", "+- c:d:jar:2:compile"]
    >>> tree = parse_tree("\\n".join(lines))
    >>> tree.roots, sorted(tree.closure("a:b")), sorted(tree.files["c:d"])
    (['a:b', 'c:d'], ['a:b', 'c:d'], ['d-2-x86.jar', 'd-2.jar'])
    """
    tree = Tree()
    above: list[str] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        depth = len(found["indent"]) // 3
        parts = found["coordinates"].split(":")
        name = f"{parts[0]}:{parts[1]}"
        del above[depth:]
        if depth == 1:
            tree.roots.append(name)
        if depth > 1:
            tree.children[above[-1]].add(name)
        if depth and "omitted for" not in line:
            version = parts[-2] if len(parts) > 4 else parts[-1]
            classifier = f"-{parts[3]}" if len(parts) == 6 else ""
            tree.files[name].add(f"{parts[1]}-{version}{classifier}.{parts[2]}")
        above.append(name)
    return tree


def cache_folder() -> Path:
    """The folder of assembled installations. For root it is one that other users can read, since `nobody` runs them."""
    if os.geteuid() == 0:
        return Path("/var/cache/hyblink")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyblink"


def assemble(version: str, java: Java) -> Path:
    """The installation folder of an OpenSearch version: `lib/`, `modules/`, `plugins/`, `agent/`.

    It is assembled once and then reused. Raises UnavailableError if Maven is missing or cannot resolve the pom.
    """
    if version not in VERSIONS:
        raise UnavailableError("unknown OpenSearch version", received=version, expected=f"one of {', '.join(VERSIONS)}")
    stamp = hashlib.sha256(POM.read_bytes() + str(_LAYOUT).encode()).hexdigest()[:12]
    home = cache_folder() / f"opensearch-{version}-{stamp}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home.with_name(f"{home.name}.lock"), timeout=900):
        if home.is_dir():
            return home
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".assembling-") as folder:
            built = Path(folder) / "home"
            tree = _resolve(version, java, Path(folder))
            _lay_out(tree, Path(folder) / "jars", built, version)
            for path in built.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            built.chmod(0o755)
            built.rename(home)
    return home


def build_plugin(version: str, java: Java) -> Path:
    """The zip of the hyblink plugin for an OpenSearch version. Maven builds it once per state of its sources."""
    sources = [*sorted(path for path in (PLUGIN / "src").rglob("*") if path.is_file()), PLUGIN / "pom.xml"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    archive = cache_folder() / "plugins" / f"opensearch-hyblink-{version}-{digest}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(archive.with_name(f"{archive.name}.lock"), timeout=900):
        if archive.exists():
            return archive
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "plugin"
            shutil.copytree(PLUGIN, copy, ignore=shutil.ignore_patterns("target"))
            _maven(java, ["--file", str(copy / "pom.xml"), f"-Popensearch-{version}", "package"], "build the plugin")
            built = archive.with_name(f".{archive.name}")
            shutil.copyfile(copy / "target" / f"opensearch-hyblink-{version}.zip", built)
            built.replace(archive)
    return archive


def _maven(java: Java, arguments: list[str], what: str) -> None:
    if not shutil.which("mvn"):
        raise UnavailableError("Maven is missing", expected="`mvn` on the PATH (Debian: apt-get install maven)")
    done = subprocess.run(
        ["mvn", "--quiet", "--batch-mode", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAVA_HOME": str(java.home)},
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line][:8]
        raise UnavailableError(f"Maven could not {what}: {' '.join(said)}")


def _resolve(version: str, java: Java, folder: Path) -> Tree:
    arguments = [
        "--file", str(POM), f"-Popensearch-{version}",
        f"{_PLUGIN}:tree", f"{_PLUGIN}:copy-dependencies",
        "-Dverbose", f"-DoutputFile={folder / 'tree.txt'}", f"-DoutputDirectory={folder / 'jars'}",
    ]  # fmt: skip
    _maven(java, arguments, f"resolve OpenSearch {version}")
    return parse_tree((folder / "tree.txt").read_text())


def _lay_out(tree: Tree, jars: Path, home: Path, version: str) -> None:
    for name in ("bin", "lib", "modules", "plugins", "agent"):
        (home / name).mkdir(parents=True)
    server: set[str] = set()
    for root in tree.roots:
        if not root.startswith(_MODULES) and root != _AGENT:
            server |= tree.closure(root)
    for name in server:
        for file in tree.files[name]:
            shutil.copyfile(jars / file, home / "lib" / file)
    for name in tree.closure(_AGENT):
        for file in tree.files[name]:
            shutil.copyfile(jars / file, home / "agent" / file)
    for root in tree.roots:
        if not root.startswith(_MODULES):
            continue
        (file,) = tree.files[root]
        name = root.removeprefix(_MODULES).removesuffix("-client")
        if file.endswith(".zip"):
            _unpack(jars / file, home / "plugins" / name)
            continue
        folder = home / "modules" / name
        folder.mkdir()
        for item in tree.closure(root, frozenset(server)):
            for part in tree.files[item]:
                shutil.copyfile(jars / part, folder / part)
        write_descriptor(
            folder,
            name=name,
            description=f"{name} of OpenSearch {version}",
            version=version,
            opensearch_version=version,
            classname=_plugin_class(jars / file),
            extended=_EXTENDS.get(name, ""),
        )


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(archive) as file:
        for entry in file.namelist():
            target = (folder / entry).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise UnavailableError(f"{archive.name} holds a path outside its folder", received=entry)
        file.extractall(folder)


def _plugin_class(jar: Path) -> str:
    with zipfile.ZipFile(jar) as file:
        plugins = [name for name in file.namelist() if re.search(r"/\w+Plugin\.class$", name)]
    found = [name for name in plugins if name.endswith("ModulePlugin.class")] or plugins
    if len(found) != 1:
        raise UnavailableError(f"cannot tell the plugin class of {jar.name}", received=found, expected="one class")
    return found[0].removesuffix(".class").replace("/", ".")


def write_descriptor(
    folder: Path,
    *,
    name: str,
    description: str,
    version: str,
    opensearch_version: str,
    classname: str,
    extended: str = "",
) -> None:
    """Write `plugin-descriptor.properties`, which OpenSearch needs to load a module or plugin."""
    fields: Mapping[str, str] = {
        "name": name,
        "description": description,
        "version": version,
        "opensearch.version": opensearch_version,
        "java.version": "21",
        "classname": classname,
        "extended.plugins": extended,
        "has.native.controller": "false",
    }
    text = "".join(f"{key}={value}\n" for key, value in fields.items())
    (folder / "plugin-descriptor.properties").write_text(text)
