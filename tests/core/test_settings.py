"""Settings and their page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.settings import Settings, _tell_unknown

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    rows = re.findall(r"^\| (`HYBLINK_\w+`) \| [^|]* \| (.*) \|$", page, re.MULTILINE)
    told = {name: re.sub(r" \(\[.*\)", "", meaning) for name, meaning in rows}
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        fields = (
            {f"HYBLINK_{name.upper()}__{key.upper()}": one for key, one in inner.items()}
            if inner
            else {f"HYBLINK_{name.upper()}": field}
        )
        for variable, one in fields.items():
            assert told.pop(f"`{variable}`", None) == one.description, variable
    assert told == {}, "settings that there are not"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HYBLINK_API__PORT", "abc", "bad HYBLINK_API__PORT; received 'abc'; expected a valid integer"),
        ("HYBLINK_API__PROT", "1", "HYBLINK_API__PROT is no setting; received '1'"),
        ("HYBLINK_ENGINE", "x", "bad HYBLINK_ENGINE; received 'x'; expected 'embedded' or 'opensearch'"),
        ("HYBLINK_OPENSEARCH__HOSTS", "[bad", "bad HYBLINK_OPENSEARCH__HOSTS; received '[bad'; expected a JSON list"),
        ("HYBLINK_ENCODE__DEVICE", "", ""),
    ],
)
def test_a_bad_setting_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    if not said:
        Settings()
        return
    with pytest.raises(InvalidInputError) as error:
        Settings()
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_bad_file_of_settings_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hyblink.toml").write_text("[api\nport = 1")
    with pytest.raises(InvalidInputError, match="hyblink.toml is not TOML"):
        Settings()
    (tmp_path / "hyblink.toml").write_text("[api]\nport = 'x'")
    with pytest.raises(InvalidInputError, match="bad HYBLINK_API__PORT"):
        Settings()


def test_a_command_says_it_too(tmp_path: Path) -> None:
    environment = {**os.environ, "HYBLINK_API__PORT": "abc", "HYBLINK_DATA_DIR": str(tmp_path)}
    for command in (["collections"], ["search", "x"], ["serve"], ["worker"], ["models", "list"]):
        done = subprocess.run(
            [sys.executable, "-m", "hyblink.app.cli.main", *command],
            env=environment,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "bad HYBLINK_API__PORT" in done.stderr


@pytest.mark.parametrize(
    "value", ["http://a:9200,http://b", '["http://a:9200", "http://b"]', " http://a:9200 , http://b,"]
)
def test_lists_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HYBLINK_OPENSEARCH__HOSTS", value)
    assert Settings().opensearch.hosts == ("http://a:9200", "http://b")


def test_what_looks_like_a_setting_and_is_none_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _tell_unknown.cache_clear()
    monkeypatch.setenv("HYBLINK_API_PORT", "1")
    monkeypatch.setenv("HYBLINK_API_URL", "http://x")
    Settings()
    assert caplog.messages == ["HYBLINK_API_PORT is no setting and is ignored (docs/settings.md lists them)"]
