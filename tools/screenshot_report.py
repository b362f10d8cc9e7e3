"""A picture of some sections of a report, for the README.

    hashret report runs/64 --out report.html
    python tools/screenshot_report.py report.html docs/report.png --sections bits classes

Needs playwright and a Chromium: playwright's own (playwright install chromium), or --chromium PATH.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

KEEP = """ids => document.body.querySelectorAll(':scope > *').forEach(part => {
  if (!ids.some(id => part.querySelector(':scope > #' + id))) part.remove();
  const first = document.body.firstElementChild.style;
  document.body.style.paddingTop = first.marginTop = 0;
  first.borderTop = 'none';
})"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--sections", nargs="+", required=True, help="ids of the sections that are kept")
    parser.add_argument("--width", type=int, default=1100, help="pixels")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--chromium", help="path of the browser")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": options.width, "height": 600}, color_scheme=options.scheme)
        page.goto(options.page.resolve().as_uri())
        page.evaluate(KEEP, options.sections)
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
        browser.close()
    picture.quantize(256, dither=Image.Dither.NONE).save(options.out, optimize=True)  # a third of the bytes
    print(f"{options.out}: {picture.width} x {picture.height}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
