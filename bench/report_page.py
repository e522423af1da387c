"""What the page of a large run costs: bytes, seconds until it is there, memory of its script.

python bench/report_page.py [--latents 1000 --pairs 150 --opens 7]

The run is made up (`tests/helpers/large_run.py`): every part that a run can have, completions of
200 tokens, words of many scripts. Chromium opens the page anew each time, without a cache; medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pages import put
from results import Row, write_rows

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

# When the page's script has run, when a frame has been drawn since, and its heap.
_TIMES = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => {
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  const shown = performance.getEntriesByType('navigation')[0];
  done({first_paint_s: paint ? paint.startTime / 1000 : null,
    loaded_s: shown.domContentLoadedEventEnd / 1000, interactive_s: performance.now() / 1000,
    heap_mb: performance.memory.usedJSHeapSize / 1e6,
    elements: document.getElementsByTagName('*').length});
})))"""
_CARD = """async (latent) => {
  const begin = performance.now();
  location.hash = `latent-${latent}`;
  const there = () => document.querySelector('#card .examples, #card .by-pair');
  while (!there()) await new Promise((next) => setTimeout(next, 1));
  return (performance.now() - begin) / 1000;
}"""
_SORT = """() => {
  const begin = performance.now();
  document.querySelectorAll('#ranking th button')[2].click();
  document.body.getBoundingClientRect();
  return (performance.now() - begin) / 1000;
}"""


def measured(browser: Any, page: Path, latent: int) -> Row:
    """One opening of the page, one sort of its table, one card."""
    session = browser.new_context()
    shown = session.new_page()
    shown.goto(page.resolve().as_uri())
    found = shown.evaluate(_TIMES)
    found["sort_s"] = shown.evaluate(_SORT)
    found["card_s"] = shown.evaluate(_CARD, latent)
    session.close()
    return found


def write_docs(row: Row) -> None:
    """What docs/report.md says of it."""
    said = (
        f"{float(str(row['bytes'])) / 1e6:.1f} MB, first paint after {row['first_paint_s']} s, "
        f"usable after {row['interactive_s']} s; a sort takes {row['sort_s']} s, a card "
        f"{row['card_s']} s, the script {row['heap_mb']} MB. Writing it took {row['write_s']} s."
    )
    page = HERE.parent / "docs" / "report.md"
    put(page, "<!-- measured: made by bench/report_page.py -->", "<!-- end of measured -->", said)


def main() -> None:
    """Make the run, its page, and open it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--opens", type=int, default=7)
    options = parser.parse_args()

    from deltalens.report import write_report
    from helpers.browser import chromium
    from helpers.large_run import make_large_run

    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        run = Path(folder) / "run"
        result = make_large_run(run, latents=options.latents, pairs=options.pairs)
        begin = time.perf_counter()
        page = write_report(run)
        row: Row = {
            "latents": options.latents,
            "pairs": options.pairs,
            "bytes": page.stat().st_size,
            "write_s": round(time.perf_counter() - begin, 2),
        }
        latent = int(result.latents[len(result.latents) // 2])
        opened = [measured(browser, page, latent) for _ in range(options.opens)]
        for name in opened[0]:
            row[name] = round(statistics.median(one[name] for one in opened), 3)
        row["chromium"] = browser.version
        print(row)
        print(write_rows("report", [row]))
        write_docs(row)


if __name__ == "__main__":
    main()
