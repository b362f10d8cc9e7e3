"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import os
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs hashret[serve]")
pytest.importorskip("playwright", reason="needs playwright")
import uvicorn
from playwright.sync_api import sync_playwright

from hashret import Searcher
from hashret.service.app import create_app
from hashret.service.connections import settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SCREENSHOTS = Path(os.environ.get("HASHRET_SCREENSHOTS", Path(__file__).parents[2] / "build" / "screenshots"))


@pytest.fixture(scope="module")
def address(index_folder, model):
    """Where the service listens."""
    server = uvicorn.Server(settings(create_app(index_folder, model, "cpu")))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as found:
        opened = found.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, 800), (375, 760)], ids=["desktop", "phone"])
def page(browser, address, request):
    """The page at desktop and phone width; a screenshot of its end is kept, and any error of its script fails."""
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    if "plain" not in request.node.name:
        opened.add_init_script("localStorage.setItem('details', 'shown')")
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    opened.on("request", lambda asked: errors.append(asked.url) if not local(asked.url, address) else None)
    opened.set_default_timeout(15_000)
    opened.goto(address)
    opened.wait_for_selector(".hit")
    opened.expected = []
    yield opened
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=SCREENSHOTS / f"{request.node.name}.png")
    opened.close()
    assert [error for error in errors if not any(part in error for part in opened.expected)] == []


def local(url, address):
    return url.startswith((address, "blob:", "data:"))


def shown(page):
    """Labels of the hits, in their order."""
    return page.locator("#hits .label").all_inner_texts()


def ids(page):
    return page.locator("#hits li").evaluate_all("items => items.map((item) => item.dataset.id)")


def after(page, act):
    """Do something, and wait until the answer to it is drawn."""
    with page.expect_response(lambda response: "/query" in response.url):
        act()
    page.wait_for_selector("#hits:not(.waiting)")


def upload(page, file):
    after(page, lambda: page.set_input_files("#file", file))


def test_upload_look_click_switch_filter(page, photos):
    page.locator("#k").fill("10")
    upload(page, photos / "test" / "red" / "01.png")
    assert len(shown(page)) == 10
    assert page.locator("#caption").inner_text() == "01.png"
    assert page.locator("#bits i").count() == 24
    assert page.locator("#times dt").all_inner_texts() == ["decoding", "encoding", "Hamming", "re-rank"]
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.querySelectorAll('#hits img')].every((image) => image.naturalWidth > 0)")

    reranked = ids(page)
    page.locator("#orders span", has_text="Hamming").click()
    by_hamming = ids(page)
    assert sorted(by_hamming) != reranked
    distances = page.locator("#hits .distances").all_inner_texts()
    bits = [int(text.split()[0]) for text in distances]
    assert bits == sorted(bits)
    page.locator("#orders span", has_text="Re-ranked").click()
    assert ids(page) == reranked

    after(page, lambda: page.select_option("#label", "green"))
    assert set(shown(page)) == {"green"}
    after(page, lambda: page.select_option("#label", ""))

    second = ids(page)[1]
    after(page, lambda: page.locator(".hit").nth(1).click())
    assert page.url.endswith(f"?id={second}")
    assert ids(page)[0] == second
    assert page.locator("[aria-current]").count() == 1
    after(page, lambda: page.go_back())
    assert ids(page) == reranked


def test_the_number_of_candidates_is_the_services_until_the_slider_is_moved(page, photos):
    """Only where none is named, ties among the nearest are taken as well; what is cut off even so is said."""
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/query" in request.url else None)
    upload(page, photos / "test" / "red" / "01.png")
    assert "k=20" in asked[-1]
    assert "candidates" not in asked[-1]
    assert page.locator("#candidates-shown").inner_text() == "36"
    assert "candidates" not in page.locator("#status").inner_text()

    def cut(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"ties_cut": True})

    page.route("**/query/values*", cut)
    after(page, lambda: page.locator("#candidates").fill("1"))
    assert "candidates=15" in asked[-1]
    assert page.locator("#candidates-shown").inner_text() == "15"
    assert "others as near were not re-ranked: take more candidates" in page.locator("#status").inner_text()


def test_the_differing_bits_of_a_hit_are_marked(page, photos):
    upload(page, photos / "test" / "green" / "00.png")
    page.locator("#orders span", has_text="Hamming").click()
    last = page.locator(".hit").last
    last.hover()
    differing = int(last.locator(".distances").inner_text().split()[0])
    assert page.locator("#bits .differs").count() == differing
    page.mouse.move(0, 0)
    assert page.locator("#bits .differs").count() == 0


def test_words(page, index_folder, model):
    wanted = [hit.id for hit in Searcher(index_folder, model, "cpu").search_words("green, blue", 20)]
    page.locator("#words").fill("green, ")
    offered = page.locator("#known option").evaluate_all("options => options.map((option) => option.value)")
    assert offered == ["green, blue", "green, green", "green, red"]
    page.locator("#words").fill(offered[0])
    after(page, lambda: page.locator("#words").press("Enter"))
    assert ids(page) == list(map(str, wanted))
    assert page.url.endswith("?words=green%2C%20blue")
    assert page.locator("#bits i.one").count() > 0
    assert page.locator("#looks").is_hidden()
    after(page, lambda: page.locator(".hit").nth(1).click())
    assert page.locator("#words").input_value() == ""
    after(page, lambda: page.go_back())
    assert ids(page) == list(map(str, wanted))
    after(page, page.reload)
    assert page.locator("#words").input_value() == "green, blue"
    page.expected = ["422"]
    page.locator("#words").fill("grean")
    page.locator("#words").press("Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "near to it is green" in page.locator("#error").inner_text()


ON_TOP = """(() => {
  const box = document.querySelector("#photo").getBoundingClientRect();
  return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2).id;
})()"""


def test_maps_lie_over_the_photograph(page, photos):
    upload(page, photos / "test" / "blue" / "00.png")
    for look, note in (("Attention", "above its mean"), ("Bits from", "adds to the bits")):
        page.locator("#looks span", has_text=look).click()
        page.wait_for_selector("#map:not([hidden])")
        page.wait_for_load_state("networkidle")
        assert note in page.locator("#look-note").inner_text()
        over, under = (page.locator(name).bounding_box() for name in ("#map", "#photo"))
        assert all(abs(over[side] - under[side]) < 1.5 for side in over)
        page.locator("#photo").scroll_into_view_if_needed()
        assert page.evaluate(ON_TOP) == "map"
    after(page, lambda: page.locator(".hit").nth(2).click())
    assert page.locator("#map").is_hidden()
    page.locator("#looks span", has_text="Attention").click()  # fetched for an indexed photograph
    page.wait_for_selector("#map:not([hidden])")
    page.locator("#looks span", has_text="Photo").click()
    assert page.locator("#map").is_hidden()


def test_by_keyboard(page):
    page.locator(".hit").first.focus()
    page.keyboard.press("ArrowRight")
    focused = page.evaluate("document.activeElement.closest('li') === document.querySelectorAll('#hits li')[1]")
    assert focused
    after(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("[aria-current]").count() == 1
    page.locator("#orders input").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#orders input").nth(1).is_checked()


def test_dropping_and_pasting(page, photos):
    data = list((photos / "test" / "blue" / "02.png").read_bytes())
    carry = """([kind, data]) => {
      const carried = new DataTransfer();
      carried.items.add(new File([new Uint8Array(data)], "mine.png", { type: "image/png" }));
      const options = { bubbles: true, cancelable: true };
      dispatchEvent(kind === "drop" ? new DragEvent("drop", { ...options, dataTransfer: carried })
        : new ClipboardEvent("paste", { ...options, clipboardData: carried }));
    }"""
    for kind in ("drop", "paste"):
        after(page, lambda kind=kind: page.evaluate(carry, [kind, data]))
        assert page.locator("#caption").inner_text() == "mine.png"
        assert len(shown(page)) == 20


def test_what_is_no_photograph_gets_a_line_and_the_page_goes_on(page, photos, tmp_path):
    page.expected = ["415"]  # the browser's own line on the console
    (tmp_path / "notes.png").write_text("not a picture")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#error:not([hidden])")
    assert "not an image" in page.locator("#error").inner_text()
    upload(page, photos / "test" / "red" / "00.png")
    assert page.locator("#error").is_hidden()
    assert len(shown(page)) == 20


def test_a_plain_page_says_what_a_visitor_needs(page, photos):
    upload(page, photos / "test" / "red" / "01.png")
    assert re.fullmatch(
        r"The most similar 20 of 36 photographs, found in 0\.\d+ s", page.locator("#status").inner_text()
    )
    assert all(re.fullmatch(r"\d+ % similar|nearly the same", text) for text in alike(page))
    for name in ("#details", "#orders", "#candidates-slider", "#rerank-pick", "#hits .distances", "#hits .moved"):
        assert page.locator(name).first.is_hidden()
    page.locator("#expert").click()
    assert page.locator("#details").is_visible()
    assert page.locator("#hits .alike").first.is_hidden()
    assert page.locator("#status").inner_text().startswith("20 of 36 photographs, all with")
    page.reload()
    page.wait_for_selector(".hit")
    assert page.locator("#expert").get_attribute("aria-pressed") == "true"  # it is remembered


def alike(page):
    return page.locator("#hits .alike").all_inner_texts()


def test_a_plain_hit_is_shown_large(page, photos):
    upload(page, photos / "test" / "red" / "01.png")
    order = ids(page)
    page.locator(".hit").nth(1).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#large[open]")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.querySelector('#large-photo').naturalWidth > 0")
    assert page.locator("#keep").get_attribute("href") == f"/api/items/{order[1]}/file"
    assert re.fullmatch(r"\d\d\.png", page.locator("#large-name").inner_text())
    assert page.locator("#large-folder").inner_text() in ("red", "green", "blue")
    page.keyboard.press("ArrowRight")
    assert page.locator("#keep").get_attribute("href") == f"/api/items/{order[2]}/file"
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#keep").get_attribute("href") == f"/api/items/{order[0]}/file"
    assert page.locator("#previous").is_disabled()
    with page.expect_download() as kept:
        page.locator("#keep").click()
    assert kept.value.suggested_filename == page.locator("#large-name").inner_text()
    page.locator("#copy").click()
    page.wait_for_selector("#copy:not(:has-text('Copy the path'))")
    assert page.locator("#copy").inner_text() in (
        "Copied",
        page.locator("#large-folder").inner_text() + "/" + page.locator("#large-name").inner_text(),
    )
    page.screenshot(path=SCREENSHOTS / f"large-{page.viewport_size['width']}.png")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    page.locator(".hit").nth(2).hover()
    page.locator(".enlarge").nth(2).click()
    after(page, lambda: page.locator("#search-by").click())
    assert ids(page)[0] == order[2]


def test_a_wrong_file_takes_the_old_answer_away(page, photos, tmp_path):
    page.expected = ["415"]
    upload(page, photos / "test" / "red" / "00.png")
    (tmp_path / "notes.png").write_text("not a picture")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#error:not([hidden])")
    assert ids(page) == []
    assert page.locator("#details").is_hidden()
    assert page.locator("#status").inner_text() == ""


def test_nothing_is_wider_than_the_screen(page, photos):
    upload(page, photos / "test" / "red" / "00.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
