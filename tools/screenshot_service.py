"""Pictures of the page of `hashret serve` in each of its states, driven by Playwright in Debian's Chromium.

    hashret train --data cifar10-1:data --method am-vggh+ --backbone efficientnet_lite0    # in a folder run/
    hashret encode cifar10-1:data --split train && hashret build-index
    python tools/screenshot_service.py --run run --photos data/test/bird/A.png data/test/bird/B.png data/test/ship/C.png

Writes the pictures of docs/serve.md, of which the first two photographs should show one thing; with --every FOLDER, all
states at 390 and 1280 pixels in light and dark there instead, to look at.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZES = {1280: (1280, 760), 390: (390, 700)}
DOCUMENTED = {  # of each picture of the docs: state, width and colours
    "serve": ("answer", 1280, "light"),
    "serve-details": ("details", 1280, "light"),
    "serve-several": ("several", 1280, "dark"),
    "serve-large": ("large", 1280, "dark"),
    "serve-phone-start": ("start", 390, "light"),
    "serve-phone-answer": ("answer", 390, "dark"),
    "serve-phone-together": ("together", 390, "light"),
    "serve-phone-any": ("any_of_them", 390, "dark"),
    "serve-phone-words": ("words", 390, "dark"),
    "serve-phone-nothing": ("nothing", 390, "light"),
    "serve-phone-missing": ("missing", 390, "dark"),
    "serve-phone-some-wrong": ("some_wrong", 390, "light"),
    "serve-phone-wrong": ("wrong", 390, "dark"),
    "serve-phone-too-large": ("too_large", 390, "light"),
    "serve-phone-gone": ("gone", 390, "dark"),
    "serve-phone-empty": ("empty", 390, "light"),
    "serve-phone-large": ("large", 390, "dark"),
}


def start(page, _):
    """Some photographs of the index."""


def answer(page, photos):
    """A photograph and what is similar."""
    upload(page, photos[:1])


def details(page, photos):
    """The same for an expert: where the bits come from, and those in which the hit under the pointer differs."""
    upload(page, photos[:1])
    page.locator("#expert").click()
    page.locator("#looks span", has_text="Bits from").click()
    page.wait_for_load_state("networkidle")
    page.locator(".hit").nth(8).hover()


def several(page, photos):
    """Several photographs, of which the third one's answer is looked at."""
    upload(page, photos)
    page.locator(".choice").nth(2).click()


def together(page, photos):
    """Several photographs as one query."""
    upload(page, photos[:2])
    page.locator(".choice", has_text="all together").click()


def any_of_them(page, photos):
    """What is like any of several photographs."""
    upload(page, [photos[0], photos[2]])
    page.locator(".choice", has_text="any of them").click()


def words(page, _):
    """A query in words."""
    page.locator("#words").fill("ship, bird")
    page.locator("#words").press("Enter")


def least(page, photos):
    """What is at least very similar."""
    upload(page, photos[:1])
    page.locator("#k").fill("100")
    page.select_option("#least", "very")


def large(page, photos):
    """A hit shown large."""
    upload(page, photos[:1])
    page.locator(".hit").nth(1).hover()
    page.locator(".enlarge").nth(1).click()


def wrong(page, _):
    """A file that is no photograph."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "letter.png").write_text("not a picture")
        page.set_input_files("#file", Path(folder) / "letter.png")
        page.wait_for_selector("#error:not([hidden])")


def some_wrong(page, photos):
    """Several files, one of which is no photograph."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "letter.png").write_text("not a picture")
        page.set_input_files("#file", [*photos[:2], Path(folder) / "letter.png"])
        page.wait_for_selector(".choice.bad")


def too_large(page, _):
    """A file that is larger than what is taken."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "film.png").write_bytes(bytes(21 * 2**20))
        page.set_input_files("#file", Path(folder) / "film.png")
        page.wait_for_selector("#error:not([hidden])")


def nothing(page, photos):
    """Nothing is so similar."""
    upload(page, photos[:1])
    page.select_option("#label", "truck")
    page.select_option("#least", "same")
    page.wait_for_selector("#instead:not([hidden])")


def missing(page, photos):
    """Hits whose files are gone."""
    page.route("**/thumbnail*", lambda route: route.fulfill(status=404, body="{}"))
    page.goto(page.url)
    upload(page, photos[:1])


def missing_large(page, photos):
    """A hit whose file is gone, shown large."""
    missing(page, photos)
    page.locator(".hit").nth(1).hover()
    page.locator(".enlarge").nth(1).click()


def gone(page, photos):
    """The service has ended."""
    upload(page, photos[:1])
    page.route("**/api/**", lambda route: route.abort())
    page.locator(".hit").nth(1).click()
    page.wait_for_selector("#error:not([hidden])")


def empty(page, _):
    """An index without photographs."""
    page.route("**/api/items*", lambda route: route.fulfill(json=[]))
    page.route("**/api/about", lambda route: without_photographs(route))
    page.goto(page.url)


def without_photographs(route):
    about = route.fetch()
    route.fulfill(json=about.json() | {"count": 0})


STATES = {
    function.__name__: function
    for function in (
        start, answer, details, several, together, any_of_them, words, least, large, wrong, some_wrong, too_large,
        nothing, missing, missing_large, gone, empty,
    )
}  # fmt: skip


def upload(page, photos):
    with page.expect_response(lambda response: "/api/query" in response.url):
        page.set_input_files("#file", photos)
    page.wait_for_selector("#hits:not(.waiting) .rank:not(:empty)")
    page.wait_for_load_state("networkidle")


@contextmanager
def service(run):
    command = [sys.executable, "-u", "-m", "hashret", "serve", "index", "--model", "model.safetensors", "--port", "0"]
    process = subprocess.Popen(command, cwd=run, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split(" at ")[1].split(";")[0]
    finally:
        process.terminate()
        process.wait()


def picture(browser, address, photos, state, width, colours):
    wide, high = SIZES[width]
    page = browser.new_page(
        viewport={"width": wide, "height": high}, color_scheme=colours, reduced_motion="reduce"
    )  # fmt: skip
    page.goto(address)
    page.wait_for_selector(".hit")
    STATES[state](page, photos)
    page.wait_for_load_state("networkidle")
    page.wait_for_selector("#hits:not(.waiting)", state="attached")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--every", type=Path)
    parser.add_argument("--states", nargs="+", default=list(STATES), choices=STATES)
    options = parser.parse_args()
    wanted = DOCUMENTED
    if options.every:
        options.every.mkdir(parents=True, exist_ok=True)
        wanted = {
            f"{state}-{width}-{colours}": (state, width, colours)
            for state in options.states for width in SIZES for colours in ("light", "dark")
        }  # fmt: skip
    with service(options.run) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (state, width, colours) in wanted.items():
            taken = picture(browser, address, options.photos, state, width, colours)
            if options.every:
                taken.save(options.every / f"{name}.png")
            else:
                taken.save(DOCS / f"{name}.webp", quality=75, method=6)


if __name__ == "__main__":
    main()
