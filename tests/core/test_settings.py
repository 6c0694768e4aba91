"""Settings and their page."""

from __future__ import annotations

from pathlib import Path

from hyblink.app.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        section = field.annotation
        inner = getattr(section, "model_fields", None)
        names = [f"HYBLINK_{name.upper()}__{key.upper()}" for key in inner] if inner else [f"HYBLINK_{name.upper()}"]
        for variable in names:
            assert f"`{variable}`" in page, variable
