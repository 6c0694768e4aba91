"""Settings and their page."""

from __future__ import annotations

import re
from pathlib import Path

from hyblink.app.core.settings import Settings

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
