"""A real headless Chromium, a real API and a real Streamlit, each a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.brokers import free_port
from support.services import missing_service

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]  # fmt: skip


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"{url} did not answer")


@contextmanager
def serving(environment: dict[str, str], folder: Path, collection: str) -> Iterator[tuple[str, str]]:
    """A service and its UI in processes of their own: their addresses."""
    api_port, ui_port = free_port(), free_port()
    api_url, ui_url = f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{ui_port}"
    api = subprocess.Popen(
        [sys.executable, "-m", "hyblink.app.cli.main", "serve", "--port", str(api_port)], env=environment, cwd=folder
    )
    streamlit = subprocess.Popen(
        [
            sys.executable, "-m", "streamlit", "run", str(ROOT / "ui" / "streamlit_app.py"), "--server.headless", "true",
            "--server.address", "127.0.0.1", "--server.port", str(ui_port), "--browser.gatherUsageStats", "false",
        ],
        env={**environment, "HYBLINK_API_URL": api_url, "HYBLINK_UI_COLLECTION": collection, "HYBLINK_UI_KB": "api"},
        cwd=folder,
    )  # fmt: skip
    try:
        wait_for(f"{api_url}/readyz", api)
        wait_for(f"{ui_url}/_stcore/health", streamlit)
        yield api_url, ui_url
    finally:
        for process in (streamlit, api):
            process.terminate()
            process.wait(timeout=30)


@contextmanager
def opened_page(folder: Path, address: str) -> Iterator[Any]:
    """A page of a browser whose profile is in `folder`."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        missing_service("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(folder), executable_path=chromium, headless=True, args=FLAGS, viewport={"width": 1280, "height": 1400}
        )
        opened = context.new_page()
        opened.set_default_timeout(30_000)
        opened.goto(address)
        yield opened
        context.close()


def retrain(tab: Any, *, steps: int = 200, **gate: str) -> Any:
    """Press the button for the collection `python`; the line of the retraining."""
    tab.get_by_role("combobox", name="Collection").click()
    tab.get_by_role("option", name="python", exact=True).click()
    tab.locator(".hb-generation[data-state='g000001!']").wait_for()
    if gate:
        tab.get_by_text("Training and gate").click()
        for label, value in {"Steps": str(steps), **gate}.items():
            box = tab.get_by_label(label.replace("_", " "), exact=True)
            box.fill(value)
            box.press("Tab")
    tab.get_by_role("button", name="Retrain", exact=True).click()
    return tab.locator(".hb-retraining").first
