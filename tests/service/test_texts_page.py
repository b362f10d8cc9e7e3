"""The page over an encoder that takes texts: a tiny network of open_clip with random weights."""

import pytest

pytest.importorskip("fastapi", reason="needs hashret[serve]")
pytest.importorskip("playwright", reason="needs playwright")
from models.test_clip import taught, tiny  # noqa: F401

from hashret import Searcher
from service.test_browser import after, browser, ids, served  # noqa: F401


@pytest.fixture(scope="module")
def address(taught):  # noqa: F811
    with served(taught / "index", taught / "model.safetensors") as found:
        yield found


@pytest.mark.parametrize("width", [1280, 390])
def test_a_text_is_asked_for_in_the_pages_field(browser, address, taught, width):  # noqa: F811
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(15_000)
    page.goto(address)
    page.wait_for_selector(".hit")
    assert page.locator("#words").get_attribute("placeholder") == "or say what they show: a red car"
    page.locator("#words").fill("a red, square thing")
    after(page, lambda: page.locator("#words").press("Enter"))
    wanted = Searcher(taught / "index", taught / "model.safetensors", "cpu").search_text("a red, square thing", 20)
    assert ids(page) == [str(hit.id) for hit in wanted]
    assert page.locator("#status").inner_text().startswith("The most similar 20 of 36 photographs")
    page.locator("#words").fill("  ")
    page.locator("#words").press("Enter")
    assert page.locator("#error").inner_text() == "Say in words what the photographs should show."
    page.locator("#words").fill("")
    page.locator("#words").press_sequentially("x")
    page.evaluate("document.querySelector('#words').value = 'x'.repeat(999)")
    page.locator("#words").press_sequentially("yz")  # one more than the service takes
    after(page, lambda: page.locator("#words").press("Enter"))
    assert len(ids(page)) == 20
    assert page.locator("#error").is_hidden()
    page.close()


def test_names_of_classes_are_no_text(browser, address):  # noqa: F811
    """Where an encoder knows classes, too, their names are asked for as such, and all else as a text."""
    page = browser.new_page()
    page.set_default_timeout(15_000)
    page.route("**/api/about", lambda route: route.fulfill(json=route.fetch().json() | {"words": ["red", "green"]}))
    page.goto(address)
    page.wait_for_selector(".hit")
    for typed, path in (("Red, green", "/api/query/words"), ("red or green", "/api/query/text")):
        page.locator("#words").fill(typed)
        with page.expect_request(lambda request, path=path: path in request.url):
            page.locator("#words").press("Enter")
    page.close()
