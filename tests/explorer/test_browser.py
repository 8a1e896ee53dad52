"""Notebook 12 in JupyterLab, in a real Chromium: run, choose, hover, click, keys, dark, offline."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from altlib.explorer import reading, widget
from altlib.store import PROJECT

LIMIT = 300_000  # milliseconds, on the busiest machine
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
TINY = Path(__file__).parents[1] / "tiny.yaml"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium (on Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def home(tiny_plm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with notebook 12 on the tiny profile."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "tiny.yaml").write_text(TINY.read_text().replace("name: tiny,", f"name: {tiny_plm},"))
    book = nbformat.read(PROJECT / "notebooks" / "12_alignment.ipynb", as_version=4)
    cell = next(cell for cell in book.cells if cell.cell_type == "code")
    cell.source = cell.source.replace('"quick"', repr(str(folder / "tiny.yaml")))
    nbformat.write(book, folder / "explore.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[tuple[str, str]]:
    """The address and the token of a JupyterLab of its own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    config = home / "config" / "labconfig"
    config.mkdir(parents=True)
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    (config / "page_config.json").write_text(json.dumps({"disabledExtensions": disabled}))
    whole = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}
    (config / "default_setting_overrides.json").write_text(json.dumps(whole))
    places = {
        "HOME": home, "JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime", "IPYTHONDIR": home / "ipython",
        "ALTLIB_HOME": home,
    }  # fmt: skip
    with (home / "server.log").open("w") as log:
        running = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1",
                f"--port={port}", "--port-retries=0", "--allow-root",
                f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home}",
                "--LabApp.expose_app_in_browser=True",
            ],
            env={**os.environ, **{name: str(path) for name, path in places.items()}},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        for _ in range(3000):
            try:
                with urllib.request.urlopen(f"{address}/api/status?token={token}"):
                    break
            except OSError:
                assert running.poll() is None, (home / "server.log").read_text()
                time.sleep(0.1)
        yield address, token
    finally:
        running.terminate()
        running.wait(120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=LIMIT)
        yield running
        running.close()


def watched(page: Page) -> tuple[list[str], list[str]]:
    """Errors of a page, and requests that leave this machine; both are filled as it goes on."""
    page.set_default_timeout(LIMIT)
    errors: list[str] = []
    abroad: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    home = re.compile(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:|file:")
    page.on("request", lambda sent: home.match(sent.url) or abroad.append(sent.url))
    return errors, abroad


def asked(page: Page, expression: str) -> str:
    """What an expression is in the kernel of the open notebook."""
    reply = page.evaluate(
        """async expression => {
            const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const request = { code: '', user_expressions: { it: expression } };
            return (await kernel.requestExecute(request).done).content.user_expressions.it;
        }""",
        expression,
    )
    return reply["data"]["text/plain"]


def serious(page: Page, place: str) -> list[str]:
    """Serious and critical violations that axe finds in a part of the page."""
    found = Axe().run(page, context=place).response["violations"]
    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def test_explore_in_jupyterlab(home: Path, server: tuple[str, str], browser: Any) -> None:
    address, token = server
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    errors, abroad = watched(page)
    page.goto(f"{address}/lab/tree/explore.ipynb?reset&token={token}")
    page.wait_for_function(
        """() => {
            const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
            const kernel = context?.session?.kernel;
            return context?.isReady && kernel?.connectionStatus === 'connected'
                && kernel.status === 'idle';
        }""",
    )
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    root = page.locator(".alt-map").first
    root.wait_for()
    status = root.locator(".status")
    cells = root.locator("td.cell")
    assert root.locator("table[role=grid]").count() == 2  # what is read, what is needed
    first = root.locator("table[role=grid]").first

    # hover, click, and what reaches Python
    cells.nth(3).hover()
    assert re.search(r"→ .+: 0\.\d{3} \(×\d+\.\d uniform\)", status.inner_text())
    cells.nth(3).click()
    assert status.inner_text().startswith("Pinned.")
    assert root.locator("td[aria-selected=true]").count() == 1
    pinned = asked(page, "[explorer_view.map.pinned[name] for name in ('row', 'column')]")
    assert pinned == "[0, 3]"
    page.keyboard.press("ArrowLeft")
    assert first.locator("td.cell[tabindex='0']").get_attribute("data-place") == "0,0,2"
    page.keyboard.press("Home")

    # keys: one tab stop a map, arrows, Enter
    assert root.locator("td.cell[tabindex='0']").count() == 2
    first.locator("td.cell[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    place = page.evaluate("document.activeElement.dataset.place")
    assert place == "0,1,1" and first.locator("td.cell[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    assert root.locator("td.pinned").get_attribute("data-place") == "0,1,1"
    page.keyboard.press("Control+End")
    assert page.evaluate("document.activeElement.dataset.place").startswith("0,5,")

    root.locator("td[data-place='1,2,3']").hover()
    need = r"without the words of item id, the loss of occupation is [+−]\d\.\d{3} nats"
    assert re.search(need, status.inner_text())

    # choose a field and a checkpoint to compare with: three maps, one of differences, and two
    output = page.locator(".jp-OutputArea-output:has(.alt-map)").first
    output.get_by_label("Masked field").select_option("genre")
    root.locator("tr.chosen th", has_text="genre").first.wait_for()
    output.get_by_label("Compare with").select_option("before pretraining")
    root.locator("table[role=grid]").nth(4).wait_for()
    assert "less" in root.locator("caption").nth(2).inner_text()
    assert root.locator("td.pinned").count() == 0
    output.get_by_text("all rows").click()
    root.locator("caption", has_text="mean of").first.wait_for()
    output.get_by_text("one row").click()
    root.locator(".sentence").wait_for()
    page.screenshot(path=home / "light.png")
    assert serious(page, ".alt-map") == []

    # the whole notebook went through, and the dark theme reads well, too
    page.wait_for_function(
        """() => jupyterapp.shell.currentWidget.content.model.cells.length
            && [...jupyterapp.shell.currentWidget.content.model.cells].every(
                cell => cell.type !== 'code' || cell.executionCount)""",
    )
    faults = page.evaluate(
        """[...jupyterapp.shell.currentWidget.content.model.cells].flatMap(
            cell => cell.type === 'code' ? cell.outputs.toJSON() : []
        ).filter(output => output.output_type === 'error')"""
    )
    assert faults == []
    page.evaluate(
        "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    assert serious(page, ".alt-map") == []
    root.scroll_into_view_if_needed()
    page.screenshot(path=home / "dark.png")
    assert errors == [] and abroad == []
    page.close()


def test_the_page_works_without_a_kernel(home: Path, browser: Any) -> None:
    columns = [{"text": word, "group": name} for name, word in (("age", "age"), ("age", "old"))]
    columns += [{"text": "Kolya", "group": "title"}]
    panel = {
        "title": "after", "kind": "attention", "rows": ["age", "title"], "columns": columns,
        "values": [[0.1, 0.6, 0.2], [0.0, 0.3, 0.6]], "uniform": [0.2] * 3, "special": [0.1, 0.1],
    }  # fmt: skip
    less = reading.difference(panel, {**panel, "values": [[0.2, 0.4, 0.3], [0.1, 0.3, 0.5]]})
    view = {
        "field": 0, "panels": [panel, panel, less], "truth": "old", "known": False, "label": 1,
        "probability": None, "note": reading.CAUTION,
        "recovered": [{"checkpoint": "after", "values": [["old", 0.9]], "words": []}],
    }  # fmt: skip
    file = home / "page.html"
    file.write_text(widget.page(view, "A row"), encoding="utf-8")
    page = browser.new_page()
    errors, abroad = watched(page)
    page.goto(file.as_uri())
    page.locator("[data-place='2,1,2']").hover()
    assert page.locator(".status").inner_text() == "after less after: title → Kolya: −0.100"
    page.locator("[data-place='0,0,1']").click()
    expected = "Pinned. after: age → old: 0.600 (×3.0 uniform)"
    assert page.locator(".status").inner_text() == expected
    assert "✓ old 90.0 %" in page.locator(".recovered").inner_text()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page, "body") == []
    assert errors == [] and abroad == []
    page.close()
