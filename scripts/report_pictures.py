"""Pictures of a run's report for the documentation, by a headless Chromium (`apt install chromium`).

It needs the extra `report-tests`. Writes report-verdict.png and report-rows.png.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.reports.write import write_run_report
from embedgrad_cli.storage.files import write_atomically

WIDTH, HEIGHT = 1000, 760
LARGEST = 300_000  # bytes of a picture


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory of optimize")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    args = parser.parse_args(argv)
    try:
        draw(args.run, args.out, args.chromium)
    except EmbedgradError as error:
        print(f"report_pictures: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def draw(run: Path, out: Path, chromium: str | None) -> None:
    """Write the pictures of the first screen and of an open row that was fixed.

    Raises:
        UserError: there is no browser, or a picture is too large.
    """
    from playwright.sync_api import sync_playwright

    if chromium is None:
        raise UserError("no browser is found. Install one (apt install chromium), or name it: --chromium FILE.")
    file = write_run_report(run)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(
            offline=True, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
        ).new_page()
        page.goto(file.resolve().as_uri())
        pictures = {"report-verdict.png": page.screenshot()}
        page.click('[data-kind="fixed"]')
        page.keyboard.press("j")
        page.evaluate("document.getElementById('rows').scrollIntoView()")
        pictures["report-rows.png"] = page.screenshot()
        browser.close()
    for name, content in pictures.items():
        if len(content) > LARGEST:
            raise UserError(f"{name} takes {len(content)} bytes, and {LARGEST} were expected at most.")
        write_atomically(out / name, content)
        print(out / name)


if __name__ == "__main__":
    sys.exit(main())
