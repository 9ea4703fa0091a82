"""Pictures of reports for the documentation, by a headless Chromium (`apt install chromium`).

    python scripts/report_pictures.py outputs/demo --out docs/pictures
    python scripts/report_pictures.py outputs/lab --name report-lab --out docs/pictures

A run gives NAME-verdict.png and NAME-rows.png, a folder of several NAME-verdict.png and NAME-settings.png. It needs the
extra `report-tests`.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from embedgrad_cli.cli.main import main as embedgrad
from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.storage.files import write_atomically

WIDTH, HEIGHT = 1000, 760
LARGEST_PICTURE, LARGEST_REPORT = 300_000, 3_000_000  # bytes


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a run directory, or a folder of several")
    parser.add_argument("--name", default="report", help="what the pictures' names begin with")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder of the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    args = parser.parse_args(argv)
    try:
        for part, content in pictures(args.path, args.chromium).items():
            write_within(args.out / f"{args.name}-{part}.png", content, LARGEST_PICTURE)
    except EmbedgradError as error:
        print(f"report_pictures: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def pictures(path: Path, chromium: str | None) -> dict[str, bytes]:
    """The first screen, and of a run an open row that was fixed, of several the settings beside validation.

    Raises:
        UserError: there is no browser, no report, or it is too large.
    """
    from playwright.sync_api import sync_playwright

    if chromium is None:
        raise UserError("no browser is found. Install one (apt install chromium), or name it: --chromium FILE.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        file = Path(folder) / "report.html"
        with redirect_stdout(io.StringIO()):
            code = embedgrad(["report", str(path), f"output={file}"])
        if code != 0:
            raise UserError(f"{path} gives no report.")
        check_size(file, file.stat().st_size, LARGEST_REPORT)
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(
            offline=True, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
        ).new_page()
        page.goto(file.as_uri())
        made = {"verdict": page.screenshot()} | second_picture(page)
        browser.close()
    return made


def second_picture(page: Any) -> dict[str, bytes]:
    fixed = page.locator('[data-kind="fixed"]')
    if fixed.count() == 0:
        show(page.get_by_role("heading", name="Settings and validation").first)
        return {"settings": page.screenshot()}
    fixed.click()
    page.keyboard.press("j")
    show(page.locator("#rows"))
    return {"rows": page.screenshot()}


def show(part: Any) -> None:
    part.evaluate("part => part.scrollIntoView()")


def write_within(file: Path, content: bytes, largest: int) -> None:
    check_size(file, len(content), largest)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content)
    print(file)


def check_size(file: Path, size: int, largest: int) -> None:
    if size > largest:
        raise UserError(f"{file.name} takes {size} bytes, and {largest} were expected at most.")


if __name__ == "__main__":
    sys.exit(main())
