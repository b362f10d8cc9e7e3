"""The README's pictures of the page: `hashret serve` over a real index, driven by Playwright in Debian's Chromium.

    python tools/screenshot_service.py --run runs/224 --photo data/test/horse/NAME.png

The folder holds model.safetensors and index/. Writes docs/serve.webp and docs/serve-phone.webp.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCREENS = {"serve": (1240, 760, 1), "serve-phone": (375, 760, 1.5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    command = [sys.executable, "-u", "-m", "hashret", "serve", "index", "--model", "model.safetensors", "--port", "0"]
    service = subprocess.Popen(command, cwd=options.run, stdout=subprocess.PIPE, text=True)
    try:
        address = service.stdout.readline().split(" at ")[1].split(";")[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for name, (width, height, scale) in SCREENS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
                look(page, address, options.photo, hover=width > 500)
                picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                picture.save(options.out / f"{name}.webp", quality=85, method=6)
    finally:
        service.terminate()


def look(page, address, photo, hover):
    """Upload a photograph, show what adds to its bits, and point at a hit whose code differs."""
    page.goto(address)
    page.wait_for_selector(".hit")
    page.set_input_files("#file", photo)
    page.wait_for_selector("#bits i")
    page.locator("#looks span", has_text="Bits from").click()
    page.wait_for_load_state("networkidle")
    if hover:
        page.locator(".hit").nth(8).hover()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(400)


if __name__ == "__main__":
    main()
