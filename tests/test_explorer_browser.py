"""The explorer's page in a browser: it shows the numbers of Python, for the step and the unit that are chosen."""
import json
import re
import shutil

import numpy as np
import pytest

import minilstm
from explorer_pages import disagreement, random_page, shown
from minilstm.explorer import explore

pytestmark = pytest.mark.browser
WIDTHS = 1200, 800


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver",
                                    reason="selenium is not installed (pip install -e '.[browser]')")
    from selenium.webdriver.chrome.service import Service
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("chromium and its driver are not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


class Page:
    """A page that is open."""

    def __init__(self, browser, path, width=WIDTHS[0]):
        self.browser = browser
        browser.get_log("performance"), browser.get_log("browser")              # of the page before
        browser.set_window_size(width, 900)
        browser.get(path.as_uri())

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def press(self, *names, on="body"):
        from selenium.webdriver.common.keys import Keys
        for name in names:
            self.find(on).send_keys(getattr(Keys, name))

    def lines(self, part):
        """Of the equations: a list of (name, expression with numbers, or "", result)."""
        found = []
        for text in self.browser.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map(line => "
                "[line.dataset.name, line.querySelector('.numbers').textContent])", f"#lines-{part} .line"):
            [result] = re.findall(r"= (\S+)$", text[1])
            found.append((text[0], text[1][:-len(result) - 2].strip().removeprefix("= "), result))
        return found

    def is_clean(self):
        """No error was reported, and nothing was asked of anybody but the file itself."""
        asked = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in asked if event["method"] == "Network.requestWillBeSent"]
        assert [url.split(":")[0] for url in urls if not url.startswith("data:")] == ["file"]
        assert self.browser.get_log("browser") == []
        return True


def of_python(net, given):
    """The same numbers by ``trace``: a dict name -> value for each step."""
    return [step.values() for step in minilstm.trace(net, **given).steps]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN, tanh"])
def test_numbers_of_each_step_and_unit(browser, tmp_path, kind):
    net, given, _ = random_page(tmp_path / "page.html", kind, D=1, H=3, T=5)
    page, expected = Page(browser, tmp_path / "page.html"), of_python(net, given)
    for unit in range(3):
        assert page.find("#step-title").text == f"0, unit {unit}"
        for t, real in enumerate(given["mask"][1]):
            assert page.find("#now").text == f"t = {t} of 0…4" + ("" if real else ", masked")
            if real:
                forward, backward = page.lines("forward"), page.lines("backward")
                assert {"x", "h"} <= {line[0] for line in forward} and {"dx", "dh"} <= {line[0] for line in backward}
                for name, expression, result in forward + backward:
                    if name in expected[t]:                 # trace has no names for the arguments of formulas
                        value = expected[t][name]
                        assert result == shown(value[0 if name in ("x", "dx") else unit]), name
                    if expression:
                        assert disagreement(expression, result) < 1.1, f"{name}: {expression} = {result}"
            page.press("ARROW_RIGHT", on="#time" if unit else "body")
        page.press("HOME", "ARROW_DOWN")
    assert page.is_clean()


def test_masked_steps_say_so(browser, tmp_path):
    net, given, _ = random_page(tmp_path / "page.html", "LSTM")
    page, values = Page(browser, tmp_path / "page.html"), of_python(net, given)
    assert not page.find("#masked").is_displayed() and page.find("#lines").is_displayed()
    page.press("ARROW_RIGHT")
    assert not given["mask"][1, 1] and not page.find("#lines").is_displayed()
    c, h = shown(values[0]["c"][0]), shown(values[0]["h"][0])
    assert page.find("#masked").text == (
        f"Step 1 is masked: no input is read, and the state is carried over from step 0: c = {c}, h = {h}.")
    assert page.is_clean()


def test_one_number_is_not_said_twice(browser, tmp_path):
    random_page(tmp_path / "page.html", "LSTM", H=12)
    page = Page(browser, tmp_path / "page.html")
    texts = {line.get_dom_attribute("data-name"): line.find_element("css selector", ".numbers").text
             for line in page.all("#lines-backward .line")}
    assert all(texts[name].count("=") == 1 for name in ("dh", "dx", "dh_prev")) and texts["df"].count("=") == 2


def test_terms_of_a_product(browser, tmp_path):
    random_page(tmp_path / "page.html", "GRU", D=2)
    page = Page(browser, tmp_path / "page.html")
    line = page.find("#lines-forward .line[data-name=a_xr]")
    line.find_element("css selector", "summary").click()
    total = line.find_element("css selector", "summary code:last-of-type").text
    terms = line.find_element("css selector", ".terms").text.removeprefix("= ")
    assert terms.count("*") == 2 and disagreement(terms, total) < 1.1 and page.is_clean()


def test_the_mouse_chooses(browser, tmp_path):
    net, given, _ = random_page(tmp_path / "page.html", "LSTM", D=2, H=3, T=5)
    page, values = Page(browser, tmp_path / "page.html"), of_python(net, given)
    page.browser.execute_script(
        "const strip = document.querySelector('.strip[data-name=c] canvas'), box = strip.getBoundingClientRect();"
        "const third = box.top + 2.5 * (box.height - 26) / 3;"                  # of three rows; below them the line
        "strip.dispatchEvent(new MouseEvent('click', {clientX: box.right - 2, clientY: third}))")
    assert page.find("#step-title").text == "4, unit 2"
    assert page.find(".strip[data-name=c] .value").text == shown(values[4]["c"][2])
    page.find("#feature option[value='1']").click()
    assert page.find(".strip[data-name=x] .value").text == shown(given["x"][1, 4, 1])
    assert page.find("#lines-forward .line[data-name=x] .symbols").text == "x[1]" and page.is_clean()


def test_it_plays(browser, tmp_path):
    random_page(tmp_path / "page.html", "RNN, tanh")
    page = Page(browser, tmp_path / "page.html")
    page.press("END", "SPACE")                              # at the end it begins again
    assert "Pause" in page.find("#play").text and page.find("#now").text.startswith("t = 0")
    page.browser.set_script_timeout(10)
    seen = page.browser.execute_async_script(
        "const done = arguments[0], seen = [];"
        "const text = id => document.getElementById(id).textContent;"
        "const timer = setInterval(() => { seen.push(text('now'));"
        "if (text('play').includes('Play')) { clearInterval(timer); done(seen); } }, 50)")
    assert [text[4] for text in dict.fromkeys(seen)] == list("01234") and page.is_clean()


def test_a_menu_of_layers(browser, tmp_path):
    rng = np.random.default_rng(0)
    model = minilstm.Sequential(minilstm.GRU(2, 3, bidirectional=True), minilstm.LSTM(6, 4, proj_size=2))
    x = rng.normal(size=(1, 4, 2)).astype("float32")
    explore(model, x, target=rng.normal(size=(1, 4, 2)).astype("float32"), path=tmp_path / "page.html")
    page = Page(browser, tmp_path / "page.html")
    assert [option.text for option in page.all("#layer option")] == [
        "GRU in place 0, forward in time", "GRU in place 0, backward in time", "LSTM in place 1"]
    page.find("#layer option[value='1']").click()
    assert "walks from the end" in page.find("#where").text
    page.find("#layer option[value='2']").click()
    assert [strip.get_dom_attribute("data-name") for strip in page.all("#strips-forward .strip")] == [
        "x", "i", "f", "g", "o", "m", "c", "h"]
    page.press("ARROW_DOWN", "ARROW_DOWN")
    assert page.find("#lines-forward .line[data-name=h] .numbers").text == "has no output 2: it is 2 wide"
    assert re.search(r"mean_squared_error = \d\.\d+, of the whole batch", page.find("#facts").text) and page.is_clean()


def test_it_says_what_it_does_not_show(browser, tmp_path):
    rng = np.random.default_rng(0)
    explore(minilstm.GRU(1, 40), rng.normal(size=(1, 102, 1)).astype("float32"), path=tmp_path / "page.html")
    page = Page(browser, tmp_path / "page.html")
    assert [note.text for note in page.all("#notes li")] == [
        "32 of 40 units are shown, 0 to 31: units= of explore() chooses others.",
        "100 of 102 steps are shown, 0 to 99: steps= of explore() chooses others."]
    assert "target=" in page.find("#no-backward").text and not page.find("#gradients").is_displayed()
    assert page.is_clean()


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits(browser, tmp_path, width):
    """Nothing sticks out, and everything that is drawn has a size."""
    random_page(tmp_path / "page.html", "LSTM, layer norm", D=3, H=12, T=40)
    page = Page(browser, tmp_path / "page.html", width)
    wide, room = page.browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room <= width
    sizes = [canvas.size for canvas in page.all(".strip canvas")]
    assert len(sizes) > 10 and all(size["width"] > 300 and size["height"] > 30 for size in sizes) and page.is_clean()
