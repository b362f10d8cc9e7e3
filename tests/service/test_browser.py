"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import os
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs hashret[serve]")
pytest.importorskip("playwright", reason="needs playwright")
import uvicorn
from playwright.sync_api import sync_playwright

import hashret
from hashret import Searcher, build_index, encode, remove
from hashret.service.app import create_app
from hashret.service.connections import settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SCREENSHOTS = Path(os.environ.get("HASHRET_SCREENSHOTS", Path(__file__).parents[2] / "build" / "screenshots"))


@contextmanager
def served(index, model):
    """Where a service listens."""
    server = uvicorn.Server(settings(create_app(index, model, "cpu")))
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
def address(index_folder, model):
    with served(index_folder, model) as found:
        yield found


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
    page.wait_for_selector("#hits:not(.waiting)", state="attached")


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
    assert page.locator("#error").inner_text().startswith("notes.png cannot be read: not an image")
    upload(page, photos / "test" / "red" / "00.png")
    assert page.locator("#error").is_hidden()
    assert len(shown(page)) == 20


def test_a_plain_page_says_what_a_visitor_needs(page, photos):
    upload(page, photos / "test" / "red" / "01.png")
    assert re.fullmatch(
        r"The most similar 20 of 36 photographs, found in (less than )?0\.\d+ s", page.locator("#status").inner_text()
    )
    assert all(re.fullmatch(r"\d+ % similar", text) for text in alike(page))
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

    def kept():
        return page.locator("#keep").get_attribute("href").split("?digest=")[0]

    page.locator(".hit").nth(1).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#large[open]")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.querySelector('#large-photo').naturalWidth > 0")
    assert kept() == f"/api/items/{order[1]}/file"
    assert re.fullmatch(r"\d\d\.png", page.locator("#large-name").inner_text())
    assert page.locator("#large-folder").inner_text() in ("red", "green", "blue")
    page.keyboard.press("ArrowRight")
    assert kept() == f"/api/items/{order[2]}/file"
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert kept() == f"/api/items/{order[0]}/file"
    assert page.locator("#previous").is_disabled()
    page.keyboard.press("ArrowRight")
    page.locator("#previous").click()  # which is of no use then, and loses the focus
    assert page.locator("#previous").is_disabled()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert kept() == f"/api/items/{order[0]}/file"
    with page.expect_download() as downloaded:
        page.locator("#keep").click()
    assert downloaded.value.suggested_filename == page.locator("#large-name").inner_text()
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


def several(page, files):
    """Bring photographs at once, and wait until all are encoded, or refused."""
    with page.expect_response(lambda response: "/query" in response.url):
        page.set_input_files("#file", files)
    page.wait_for_selector("#hits:not(.waiting)", state="attached")
    page.wait_for_load_state("networkidle")


def found_for(page, searcher, photo):
    return list(map(str, (hit.id for hit in searcher.search(photo, 20))))


def test_several_photographs_have_an_answer_each_and_one_together(page, photos, index_folder, model):
    searcher = Searcher(index_folder, model, "cpu")
    files = [photos / "test" / colour / "02.png" for colour in ("red", "green", "blue")]
    several(page, files)
    assert page.locator("#several-note").inner_text() == "3 photographs, an answer each"
    assert ids(page) == found_for(page, searcher, files[0])
    page.locator(".choice input").first.focus()
    for file in files[1:]:  # by the keyboard
        after(page, lambda: page.keyboard.press("ArrowRight"))
        assert ids(page) == found_for(page, searcher, file)
    assert page.locator(".choice input").nth(2).is_checked()
    after(page, lambda: page.locator(".choice", has_text="all together").click())
    together = searcher.search_together(files, 20)
    assert ids(page) == [str(hit.id) for hit in together]
    assert page.locator("#caption").inner_text() == "3 photographs together"
    assert page.locator("#mosaic img").count() == 3
    assert page.locator("#looks").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    after(page, lambda: page.locator("#k").fill("5"))
    assert ids(page) == [str(hit.id) for hit in together[:5]]
    after(page, lambda: page.locator(".choice", has_text="any of them").click())
    union = searcher.search_together(files, 5, by="union")
    assert ids(page) == [str(hit.id) for hit in union] != [str(hit.id) for hit in together[:5]]
    assert page.locator("#several-note").inner_text() == (
        "3 photographs as one query: what is like at least one of them"
    )
    assert page.locator("#caption").inner_text() == "any of 3 photographs"
    assert page.locator("#bits i").count() == 0
    assert re.search("all within|code of one of them", page.locator("#status").inner_text())
    page.locator(".hit").first.hover()
    assert page.locator("#bits i.differs").count() == union[0].hamming
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    after(page, lambda: page.locator(".choice", has_text="all together").click())
    after(page, lambda: page.locator(".hit").nth(1).click())
    assert page.locator("#several").is_hidden()
    after(page, lambda: page.go_back())
    assert page.locator("#caption").inner_text() == "3 photographs together"


def test_of_several_those_that_are_no_photographs_are_named(page, photos, tmp_path):
    page.expected = ["415"]
    for name in ("notes.png", "more.png"):
        (tmp_path / name).write_text("not a picture")
    good = [photos / "test" / colour / "03.png" for colour in ("red", "green")]
    several(page, [tmp_path / "notes.png", *good, tmp_path / "more.png"])
    page.wait_for_selector(".choice.bad >> nth=1")
    line = page.locator("#error").inner_text()
    assert re.fullmatch(r"notes\.png cannot be read: not an image.*; nor can more\.png be searched by", line)
    assert page.locator("#caption").inner_text() == "03.png"  # that of the first that can be read
    assert page.locator(".choice input").nth(1).is_checked()
    assert len(shown(page)) == 20
    after(page, lambda: page.locator(".choice", has_text="any of them").click())
    page.locator(".hit").first.hover()
    assert re.fullmatch(r"hit 1 differs in (no|one|\d+) bits? from 03\.png", page.locator("#bits-note").inner_text())
    after(page, lambda: page.locator(".choice", has_text="all together").click())
    assert len(shown(page)) == 20


def test_none_of_several_is_a_photograph(page, tmp_path):
    page.expected = ["415"]
    for name in ("notes.png", "more.png"):
        (tmp_path / name).write_text("not a picture")
    several(page, [tmp_path / "notes.png", tmp_path / "more.png"])
    page.locator(".choice", has_text="all together").click()
    page.wait_for_selector("#error:has-text('None of these photographs can be read.')")
    assert ids(page) == []


def test_what_is_too_large_is_not_sent(page, photos, tmp_path):
    sent = []
    upload(page, photos / "test" / "red" / "00.png")
    page.on("request", lambda request: sent.append(request.url))
    with open(tmp_path / "film.png", "wb") as file:
        file.truncate(21 * 2**20)
    page.set_input_files("#file", tmp_path / "film.png")
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").inner_text() == "film.png is larger than the 20 MB that are taken"
    assert ids(page) == []
    assert not [url for url in sent if "/api" in url]


def test_a_folder_that_is_dropped_gets_a_line(page):
    drop = """() => {
      const file = new File(["x"], "holiday", { type: "" });
      file.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("", "NotFoundError")) });
      const event = new DragEvent("drop", { bubbles: true, cancelable: true });
      Object.defineProperty(event, "dataTransfer", { value: { files: [file], types: ["Files"] } });
      dispatchEvent(event);
    }"""
    page.evaluate(drop)
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").inner_text() == "holiday is a folder, or a file that can no longer be read"


def test_a_least_similarity(page, index_folder, model):
    wanted = Searcher(index_folder, model, "cpu").search_words("blue", 20)
    assert {hit.similarity for hit in wanted} == {33}  # the photographs share a code, and the class has another
    page.locator("#words").fill("blue")
    after(page, lambda: page.locator("#words").press("Enter"))
    assert len(ids(page)) == 20
    after(page, lambda: page.select_option("#least", "similar"))
    assert ids(page) == []
    line = "No photograph is at least similar (50 %). The nearest is 33 % similar."
    assert page.locator("#status").inner_text() == line
    after(page, lambda: page.select_option("#label", "red"))
    assert page.locator("#status").inner_text() == line.replace("photograph", "photograph of class red")
    after(page, lambda: page.select_option("#least", "somewhat"))
    assert len(ids(page)) == 12
    after(page, lambda: page.select_option("#least", "very"))
    after(page, lambda: page.locator("#show-nearest").click())
    assert page.locator("#least").input_value() == ""
    assert len(ids(page)) == 12
    assert page.locator("#show-nearest").is_hidden()


def test_a_plain_page_says_how_many_are_so_similar(page, photos):
    upload(page, photos / "test" / "red" / "01.png")
    after(page, lambda: page.select_option("#label", "red"))
    after(page, lambda: page.select_option("#least", "same"))
    line = r"12 of 12 photographs of class red are at least fully similar \(100 %\), found in (less than )?0\.\d+ s"
    assert re.fullmatch(line, page.locator("#status").inner_text())


def test_hits_whose_files_are_missing_have_their_names(page, photos):
    page.expected = ["404"]
    page.route("**/thumbnail*", lambda route: route.fulfill(status=404, body="{}"))
    page.reload()
    page.wait_for_selector(".hit")
    upload(page, photos / "test" / "red" / "01.png")
    page.wait_for_load_state("networkidle")
    names = page.locator(".frame.gone").evaluate_all("frames => frames.map((frame) => frame.dataset.name)")
    assert len(names) == 20
    assert all(re.fullmatch(r"\d\d\.png", name) for name in names)
    instead = page.locator(".frame.gone").first.evaluate("frame => getComputedStyle(frame, '::after').content")
    assert "attr(data-name)" in instead or names[0] in instead
    page.locator(".hit").nth(1).hover()
    page.locator(".enlarge").nth(1).click()
    page.wait_for_selector("#large.gone")
    assert page.locator("#keep").is_hidden()
    assert page.locator("#copy").is_visible()
    page.keyboard.press("Escape")
    after(page, lambda: page.locator(".hit").nth(1).click())
    page.wait_for_selector("#shown.gone")


def test_a_service_that_is_gone_is_asked_again(page, photos):
    page.expected = ["ERR_FAILED"]
    upload(page, photos / "test" / "red" / "01.png")
    page.route("**/api/**", lambda route: route.abort())
    page.locator("#k").fill("7")
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").inner_text() == "The service does not answer. Is it still running?"
    assert len(ids(page)) == 20  # they still answer the query
    page.locator(".hit").nth(2).click()
    page.wait_for_selector("#hits:empty", state="attached")
    page.unroute("**/api/**")
    after(page, lambda: page.locator("#again").click())
    assert len(ids(page)) == 7
    assert page.locator("#error").is_hidden()
    assert page.locator("#again").is_hidden()


def test_an_index_that_is_built_again_is_told_of(browser, index_folder, model, photos, tmp_path):
    """A page that is open by then has photographs whose ids are those of others."""
    shutil.copytree(index_folder, tmp_path / "index")
    encode(f"folder:{photos}", model, tmp_path / "codes", split="test", workers=0)
    with served(tmp_path / "index", model) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector(".hit")
        drawn = page.locator("#hits li").evaluate_all("items => items.map((item) => item.hit.id)")
        other = next(number for number, id in enumerate(drawn) if id < 12)  # of which there will be one again
        before = page.locator("#hits img").nth(other).get_attribute("src")
        build_index(tmp_path / "codes", tmp_path / "index", overwrite=True)
        while page.request.get(f"{address}/api/about").json()["count"] != 12:
            time.sleep(0.1)
        assert page.request.get(address + before).status == 409
        page.locator(".hit").nth(other).click()
        page.wait_for_selector("#error:has-text('the index was built again')")
        page.close()


def test_an_empty_index(browser, index_folder, model, photos, tmp_path):
    shutil.copytree(index_folder, tmp_path / "index")
    remove(tmp_path / "index", ids=list(range(36)))
    with served(tmp_path / "index", model) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#status:not(:empty)")
        assert page.locator("#status").inner_text() == "There are no photographs here yet."
        upload(page, photos / "test" / "red" / "01.png")
        page.wait_for_selector("#status:has-text('There are no photographs.')")
        page.close()


def test_a_slow_search_says_that_it_goes_on(page, photos):
    upload(page, photos / "test" / "red" / "01.png")
    going = threading.Event()

    def slowly(route):
        page.wait_for_selector("#status:has-text('Searching…')")
        going.set()
        route.continue_()

    page.route("**/query*", slowly)
    after(page, lambda: page.locator(".hit").nth(1).click())
    assert going.is_set()
    page.wait_for_selector("#status:not(:has-text('Searching'))")


def test_several_photographs_are_brought_once_the_service_is_back(page, photos):
    page.expected = ["ERR_FAILED"]
    page.route("**/api/**", lambda route: route.abort())
    page.set_input_files("#file", [photos / "test" / colour / "02.png" for colour in ("red", "green", "blue")])
    page.wait_for_selector("#again:not([hidden])")
    assert page.locator("#several-note").inner_text() == "3 photographs, 0 read so far"
    assert page.locator(".choice.bad").count() == 0
    page.unroute("**/api/**")
    after(page, lambda: page.locator("#again").click())
    page.wait_for_selector("#several-note:has-text('3 photographs, an answer each')")
    assert len(shown(page)) == 20


def test_of_many_files_some_are_taken(page, photos):
    """A hundred, and the strip says so; here the page is told to take two."""
    page.route("**/page.js", lambda route: route.fulfill(body=fewer(route), content_type="text/javascript"))
    page.reload()
    page.wait_for_selector(".hit")
    several(page, [photos / "test" / "red" / f"{number:02d}.png" for number in range(4)])
    page.wait_for_selector("#several-note:has-text('The first 2 of 4 photographs, an answer each')")
    assert page.locator(".choice").count() == 4  # two photographs, all together, any of them


def fewer(route):
    text = route.fetch().text()
    assert text.count("const MOST = 100;") == 1
    return text.replace("const MOST = 100;", "const MOST = 2;")


def test_without_a_model_photographs_of_the_index_are_searched_by(browser, index_folder, photos):
    with served(index_folder, None) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector(".hit")
        assert page.locator("#status").inner_text() == "Some of the photographs. Choose one."
        assert page.locator("#drop").is_hidden()
        after(page, lambda: page.locator(".hit").nth(1).click())
        assert page.locator("#photo").is_visible()
        assert page.locator("#choose").is_hidden()
        assert len(shown(page)) == 20
        page.close()


def test_an_index_of_vectors_takes_no_photographs(browser, photos, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    hashret.train(vectors, tmp_path / "m.safetensors", method="lsh", bits=16)
    hashret.encode(vectors, tmp_path / "m.safetensors", tmp_path / "codes")
    build_index(tmp_path / "codes", tmp_path / "index")
    with served(tmp_path / "index", tmp_path / "m.safetensors") as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector(".hit")
        assert page.locator("#status").inner_text() == "Some of the photographs. Choose one."
        assert page.locator("#about").text_content() == "40 photographs · 16 bits · lsh of vectors of 8"
        assert page.locator("#drop").is_hidden()
        page.set_input_files("#file", photos / "test" / "red" / "01.png")
        page.wait_for_selector("#error:has-text('This index is of vectors')")
        after(page, lambda: page.locator(".hit").nth(1).click())
        assert page.locator("#choose").is_hidden()
        assert page.locator("#hint").is_hidden()
        assert page.locator("#looks").is_hidden()
        page.close()


CONTRAST = """(selectors) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, number) => sum + part * [0.2126, 0.7152, 0.0722][number], 0);
  const ground = (element) => {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    return colour.length === 3 ? colour : element.parentElement ? ground(element.parentElement) : [255, 255, 255];
  };
  return Object.fromEntries(selectors.map((name) => {
    const element = document.querySelector(name);
    const pair = [numbers(getComputedStyle(element).color), ground(element)].map(light).sort((a, b) => b - a);
    return [name, (pair[0] + 0.05) / (pair[1] + 0.05)];
  }));
}"""


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_is_legible(page, photos, tmp_path, colours):
    """Contrast of 4.5 to 1, as WCAG 2.1 asks of text."""
    page.expected = ["415"]
    page.emulate_media(color_scheme=colours)
    (tmp_path / "notes.png").write_text("not a picture")
    several(page, [photos / "test" / "red" / "01.png", tmp_path / "notes.png"])
    page.wait_for_selector(".choice.bad")
    names = ["#status", "#error", "#expert", "#about", "#hits .label", "#hits .distances", "#choose", "#several-note",
             "#bits-note", ".choice.all span", "#times dd", "#k-shown", "#least", ".slider"]  # fmt: skip
    contrast = page.evaluate(CONTRAST, names)
    assert {name: round(ratio, 1) for name, ratio in contrast.items() if ratio < 4.5} == {}


def test_a_plain_page_needs_no_mouse(page):
    """From the top by Tab: the button of details, the file, words, the settings, and a hit with its large view."""
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        outline = (
            "getComputedStyle(document.activeElement.id === 'file' ? choose : document.activeElement).outlineStyle"
        )
        assert page.evaluate(outline) != "none", reached[-1]
    wanted = ["home", "expert", "file", "words", "k", "least", "label", "hit", "enlarge"]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted


def test_going_back_after_a_reload_asks_what_the_address_says(page):
    after(page, lambda: page.locator(".hit").first.click())
    first = page.url
    after(page, page.reload)
    after(page, lambda: page.locator(".hit").nth(1).click())
    assert page.url != first
    after(page, page.go_back)
    assert page.url == first
    assert first.endswith(f"?id={ids(page)[0]}")
