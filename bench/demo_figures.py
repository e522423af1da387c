"""Pictures of docs/proof.md, from a finished demo: figure 1 of both studies, and the report."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from deltalens.report import write_report

DOCS = Path(__file__).parents[1] / "docs"
STUDIES = ("advice", "validation")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WIDTH, HEIGHT = 1180, 1500
COLOURS = 128  # of the screenshot
LARGEST = 200_000  # bytes of a picture


def main() -> None:
    """Write docs/figure-STUDY.svg and .png, and docs/report.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, nargs="?", default=Path("demo-run"))
    demo = parser.parse_args().demo
    DOCS.mkdir(exist_ok=True)
    for study in STUDIES:
        others = [demo / other for other in STUDIES if other != study]
        page = write_report(demo / study, beside=others)
        for ending in ("svg", "png"):
            figure = page.parent / "figures" / f"figure-1.{ending}"
            shutil.copyfile(figure, DOCS / f"figure-{study}.{ending}")
    screenshot(demo / STUDIES[0] / "report.html", DOCS / "report.png")
    for picture in DOCS.glob("*.png"):
        if picture.stat().st_size > LARGEST:
            raise SystemExit(f"{picture} has {picture.stat().st_size:,} bytes, over {LARGEST:,}")


def screenshot(page: Path, picture: Path) -> None:
    """The top of a page, as a reader with a light scheme sees it."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    found = (shutil.which(name) for name in BROWSERS)
    browser_path = os.environ.get("DELTALENS_CHROMIUM") or next(filter(None, found), None)
    if browser_path is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        view.goto(page.resolve().as_uri())
        view.screenshot(path=picture)
        browser.close()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    main()
