"""The HTML report: its source, and how it behaves in headless Chromium."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from style.page import write_html
from support.command import InputError
from support.pictures import read_picture, resize_picture

NASTY = """python x.py --content 'a <b>"é"</b> & {{ 7 * 7 }} {% x 画.jpg' --style '</script><!--'"""
RED, GREEN, YELLOW = (200, 30, 30), (30, 160, 30), (230, 210, 30)
STYLE_PICTURE = Path(__file__).parents[1] / "picture" / "style.jpg"


def plain(height, width, color):
    """Return a picture of one colour."""
    return np.full((height, width, 3), color, np.uint8)


def made_report(losses):
    """Return a report with one step for each (content, style, tv)."""
    names = ("content", "style", "tv")
    return {
        "command": NASTY,
        "options": {
            "style": ["a <i>.jpg", "b.jpg"],
            "style_weight": 40.0,
            "resume": None,
            "report": [],
            "preserve_color": False,
            "layers": {"relu1_1": 0.5},
        },
        "weights": "learnt <from> the pictures",
        "size": [40, 60],
        "scales": [{"height": 20, "width": 30, "steps": 2}, {"height": 40, "width": 60,
                                                              "steps": 3}],
        "steps": [dict(zip(names, step, strict=True), seconds=0.25) for step in losses],
        "seconds": 135.4,
        "threads": 2,
        "peak_memory_bytes": 345_600_000,
        "versions": {"python": "3.11.4", "numpy": "2.0.0"},
    }


FRAMES = [(step, plain(20, 30, (step, 90, 90))) for step in range(5, 25, 5)]
LOSSES = [(3, 8, 0.5), (2, 4, 0.5), (2, 2, 0), (2, 5, 0.2), (2, 3, 0.125)]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a page, by default with everything, and returns its path."""

    def write(losses=LOSSES, frames=FRAMES, styles=2, **changes):
        path = tmp_path / "report.html"
        pictures = [plain(50, 50, GREEN)] * styles
        content, result = plain(80, 120, RED), plain(40, 60, YELLOW)
        write_html(path, made_report(losses) | changes, content, pictures, frames, result)
        return path

    return write


class Page(HTMLParser):
    """The tags and texts of a page; asserts that every tag is closed."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.texts = [], [], {}
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))  # <path/>

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, text):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def parsed(path):
    page = Page(path.read_text("utf-8"))
    assert page.open == []
    return page


def picture_in(uri):
    """Decode a data URI."""
    assert uri.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


# --- the source ---


def test_the_page_states_all_facts_and_escapes_them(write):
    source = write().read_text("utf-8")
    page = parsed(write())
    assert page.texts["code"] == [NASTY]
    assert page.texts["title"] == ["Style transfer: 60×40 pixels, 5 steps, 2 min 15 s"]
    assert dict(zip(page.texts["th"], page.texts["td"], strict=True)) == {
        "size": "60×40 pixels",
        "scales": "30×20, 60×40",
        "steps by scale": "2 + 3",
        "steps made": "5",
        "time": "2 min 15 s",
        "threads": "2",
        "peak memory": "346 MB",
        "weights": "learnt <from> the pictures",
        "versions": "python 3.11.4, numpy 2.0.0",
        "style": "a <i>.jpg, b.jpg",
        "style-weight": "40",
        "resume": "–",
        "report": "–",
        "preserve-color": "no",
        "layers": "relu1_1: 0.5",
    }
    assert "<b>" not in source and "<i>" not in source and "<from>" not in source
    assert page.all("html") == [{"lang": "en"}] and {"charset": "utf-8"} in page.all("meta")


def test_the_page_refers_to_nothing_outside(write):
    source = write().read_text("utf-8")
    for tag, attributes in parsed(write()).tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag}> has an inline {name}"
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:", "#")), f"<{tag} {name}={value[:40]}>"
    source = re.sub(r'xmlns(:\w+)?="[^"]*"', "", source)  # names, which nothing loads
    assert "http:" not in source and "https:" not in source and "@import" not in source
    assert set(re.findall(r"url\(.", source)) <= {"url(#"} and "default-src 'none'" in source


def test_the_same_report_gives_the_same_page_with_unique_ids(write):
    source = write().read_text("utf-8")
    assert write().read_text("utf-8") == source
    ids = [attributes["id"] for _, attributes in parsed(write()).tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 10


def test_every_picture_is_there_with_its_alternative_text(write):
    images = parsed(write()).all("img")
    assert all("alt" in image for image in images)
    # result, content in its place; content, styles; the frame shown; all frames and the result
    expected = [YELLOW, RED, RED, GREEN, GREEN, (5, 90, 90)]
    expected += [(step, 90, 90) for step in (5, 10, 15, 20)] + [YELLOW]
    assert len(images) == len(expected)
    for image, color in zip(images, expected, strict=True):
        assert abs(picture_in(image["src"]).astype(int) - color).max() <= 6
    assert [image["alt"] for image in images[2:5]] == [
        "The content picture", "The style 1 picture", "The style 2 picture",
    ]
    assert picture_in(images[0]["src"]).shape == picture_in(images[1]["src"]).shape == (40, 60, 3)


def test_large_pictures_and_many_frames_make_a_page_of_a_few_megabytes(tmp_path):
    painting = read_picture(STYLE_PICTURE)
    large = resize_picture(np.tile(painting, (2, 2, 1)), 2000, 3000)
    frame = resize_picture(large, 320, 480)
    frames = [(step, frame) for step in range(200)]
    path = tmp_path / "large.html"
    write_html(path, made_report(LOSSES), large, [large], frames, large)
    images = parsed(path).all("img")
    assert picture_in(images[0]["src"]).shape == (1067, 1600, 3)
    assert len(images) == 2 + 2 + 1 + 30 + 1
    assert path.stat().st_size < 8e6  # four large paintings of fine strokes


def test_every_step_has_a_line_with_its_losses(write):
    source = write([(1, 10, 0), (1e-9, 123456, 2), (float("nan"), 1, 0)]).read_text("utf-8")
    lines = json.loads(re.search(r'id="loss-values">(.*?)</script>', source)[1])
    assert [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] == [
        "step 1 · total 11 · content 1 · style 10 · tv 0",
        "step 2 · total 1.235e+05 · content 1e-09 · style 1.235e+05 · tv 2",
        "step 3 · total nan · content nan · style 1 · tv 0",
    ]
    assert f'<output id="at-step">{lines[-1]}</output>' in source


@pytest.mark.parametrize("losses", [[], [(0, 0, 0)], [(1, 0, 0)], [(float("nan"), 0, 0)]])
@pytest.mark.parametrize("frames", [[], FRAMES[:1]])
def test_a_page_can_be_made_of_very_little(write, losses, frames):
    page = parsed(write(losses, frames, styles=1, peak_memory_bytes=None))
    no_loss = not any(loss > 0 for step in losses for loss in step)
    assert page.texts["text"].count("no loss above 0") == 2 * no_loss  # in both charts
    text = " ".join(page.texts["p"])
    assert ("No intermediate pictures" in text) == (frames == [])
    ranges = [tag.get("id") for tag in page.all("input")]
    assert ranges == [None, *["scrub"] * (frames != []), *["step"] * (losses != [])]
    assert "not known" in page.texts["td"]


def test_a_file_name_that_is_not_valid_text_gets_a_question_mark(write):
    source = write(command="python x.py --content '\udcff.jpg'").read_text("utf-8")
    assert "?.jpg" in source


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        picture = plain(4, 4, RED)
        write_html(tmp_path / "file/a.html", made_report([]), picture, [picture], [], picture)


# --- in a browser ---

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])),
                None)
in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"
)
# Collects all errors from the start.
COLLECTOR = """<script>
window.errors = [];
addEventListener("error", (e) => errors.push(String(e.message || e.target.outerHTML)), true);
addEventListener("unhandledrejection", (e) => errors.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => errors.push("refused " + e.blockedURI));
console.error = (...parts) => errors.push(parts.join(" "));
</script>"""


# Chromium itself asks for the time and for updates.
BROWSERS_OWN = (".google.com", ".googleapis.com", ".gvt1.com")


class Proxy(BaseHTTPRequestHandler):
    """Answers every request with an error and records the requests of the page."""

    def answer(self):
        host = urlsplit(self.path).hostname or self.path.partition(":")[0]  # CONNECT host:port
        if not host.endswith(BROWSERS_OWN):
            self.server.asked.append(self.path)
        self.send_error(503)

    do_GET = do_POST = do_CONNECT = do_HEAD = answer

    def log_message(self, *arguments):
        pass


@pytest.fixture
def browse(tmp_path):
    """Return a function that opens a copy of a page in Chromium.

    It returns the value of an expression there, the errors, and the requests. All requests go to
    `Proxy`, so none leaves this machine.
    """
    server = HTTPServer(("127.0.0.1", 0), Proxy)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def browse(path, expression="null", act="", change=lambda source: source, dark=False):
        server.asked = []
        probe = f"""<script>addEventListener("load", async () => {{
            let answer = null;
            try {{ {act}; answer = {expression}; }} catch (error) {{ errors.push(String(error)); }}
            const answers = document.createElement("pre");
            answers.id = "answers";
            answers.textContent = JSON.stringify({{answer, errors}});
            document.body.append(answers);
        }});</script></body>"""
        source = change(path.read_text("utf-8"))
        source = source.replace("<head>", "<head>" + COLLECTOR, 1)
        head, _, tail = source.rpartition("</body>")
        copy = tmp_path / "copy.html"
        copy.write_text(head + probe + tail, "utf-8")
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-quic", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--virtual-time-budget=5000",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            f"--proxy-server=http://127.0.0.1:{server.server_port}",
            "--proxy-bypass-list=<-loopback>", "--window-size=1200,900", "--dump-dom",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        ]
        run = subprocess.run([CHROMIUM, *flags, copy.as_uri()], capture_output=True, timeout=120)
        log = run.stderr.decode("utf-8", "replace")
        found = re.search(r'<pre id="answers">(.*?)</pre>', run.stdout.decode("utf-8"), re.DOTALL)
        assert found, f"the page did not load: {log[-2000:]}"
        said = json.loads(html.unescape(found[1]))
        console = [line for line in log.splitlines() if "CONSOLE" in line]
        return said["answer"], said["errors"] + console, server.asked

    yield browse
    server.shutdown()
    thread.join()
    server.server_close()


@in_browser
@pytest.mark.parametrize("losses", [LOSSES, LOSSES[:1], [(0, 0, 0)]])
@pytest.mark.parametrize("frames", [FRAMES, []])
def test_the_page_works_without_errors_or_requests(write, browse, losses, frames):
    answer, errors, asked = browse(
        write(losses, frames),
        """{pictures: [...document.images].map((image) => image.naturalWidth),
            resources: performance.getEntriesByType("resource").map((entry) => entry.name)
                .filter((name) => !name.startsWith("data:")),
            title: document.title, command: document.querySelector("#command").textContent}""",
    )
    assert errors == [] and answer["resources"] == []
    assert asked == []
    assert len(answer["pictures"]) >= 5 and min(answer["pictures"]) > 0
    assert answer["command"] == NASTY


@in_browser
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("<script>nothing.here()</script>", "nothing is not defined"),
        ("<script>console.error('oh')</script>", "oh"),
        ("<script>const = 1</script>", "SyntaxError"),
        ("<img src='data:image/jpeg;base64,AAAA'>", "<img"),
        ("<img src='http://example.com/x.png'>", "refused http://example.com/x.png"),
    ],
)
def test_damage_to_the_page_would_be_noticed(write, browse, damage, complaint):
    _, errors, _ = browse(write(), change=lambda source: source.replace("<main>", damage, 1))
    assert any(complaint in error for error in errors)


@in_browser
def test_a_request_would_be_noticed(write, browse):
    def change(source):
        source = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", source, flags=re.S)
        return source.replace("<main>", "<main><img src='http://example.com/x.png'>", 1)

    _, _, asked = browse(write(), change=change)
    assert "http://example.com/x.png" in asked


def setting(selector, value):
    """Return a script that moves a range as a user does."""
    return f"""{{ const range = document.querySelector("{selector}"); range.value = "{value}";
        range.dispatchEvent(new Event("input", {{bubbles: true}})); }}"""


@in_browser
@pytest.mark.parametrize("percent", [0, 25, 100])
def test_the_slider_moves_the_division(write, browse, percent):
    (clip, line, boxes), errors, _ = browse(
        write(),
        """[getComputedStyle(document.querySelector(".before")).clipPath,
            parseFloat(getComputedStyle(document.querySelector(".line")).left),
            [...document.querySelectorAll(".compare img")].map((image) => {
                const box = image.getBoundingClientRect();
                return [box.left, box.top, box.width, box.height]; })]""",
        act=setting(".compare input", percent),
    )
    assert errors == []
    # as computed, inset(top right bottom left) holds "calc(100% - 25%)" or "75%"
    right = re.fullmatch(r"inset\(0px (?:calc\((.*)\)|(\S+%))(?: 0px 0px| 0px)?\)", clip)
    terms = [float(term) for term in re.findall(r"-?\s?[\d.]+", (right[1] or right[2]).replace(
        "- ", "-"))]
    assert sum(terms) == pytest.approx(100 - percent)
    assert boxes[0] == boxes[1]  # before lies exactly over after
    assert boxes[0][2] / boxes[0][3] == pytest.approx(1.5, rel=0.01)
    assert line == pytest.approx(boxes[0][2] * percent / 100, abs=0.5)


@in_browser
def test_the_scrubber_and_the_strip_choose_the_frame(write, browse):
    state = """(() => { const shown = document.querySelector(".shown img");
        const strip = [...document.querySelectorAll(".strip img")].map((image) => image.src);
        return [strip.indexOf(shown.src), shown.alt, document.querySelector("#shown").value,
            document.querySelector("#scrub").value,
            [...document.querySelectorAll(".strip [aria-current=true]")].map((b) => b.innerText)
        ]; })()"""
    page = write()
    answer, errors, _ = browse(page, state)
    assert answer == [0, "The picture, step 5", "step 5", "0", ["step 5"]] and errors == []
    answer, errors, _ = browse(page, state, act=setting("#scrub", 2))
    assert answer == [2, "The picture, step 15", "step 15", "2", ["step 15"]] and errors == []
    click = 'document.querySelectorAll(".strip button")[4].click()'
    answer, errors, _ = browse(page, state, act=click)
    assert answer == [4, "The picture, result", "result", "4", ["result"]] and errors == []


@in_browser
def test_the_losses_of_a_step_can_be_read(write, browse):
    # the text, and where the line is: in columns of the axes, of which every step has one
    state = """(() => { const axes = document.querySelector(".wide .axes");
        const line = getComputedStyle(axes, "::after").left;
        return [document.querySelector("#at-step").value.replaceAll("\\u00a0", " "),
            parseFloat(line) / axes.clientWidth * 5, document.querySelector("#step").value]; })()"""
    page = write()
    (text, line, step), errors, _ = browse(page, state)
    assert text == "step 5 · total 5.125 · content 2 · style 3 · tv 0.125" and step == "5"
    assert line == pytest.approx(4.5, abs=0.01) and errors == []
    (text, line, step), errors, _ = browse(page, state, act=setting("#step", 3))
    assert text == "step 3 · total 4 · content 2 · style 2 · tv 0" and step == "3"
    assert line == pytest.approx(2.5, abs=0.01) and errors == []
    hover = """const axes = document.querySelector(".wide .axes");
        const box = axes.getBoundingClientRect();
        axes.dispatchEvent(new PointerEvent("pointermove",
            {clientX: box.left + 0.25 * box.width, clientY: box.top + 9}))"""
    (text, line, step), errors, _ = browse(page, state, act=hover)
    assert text == "step 2 · total 6.5 · content 2 · style 4 · tv 0.5" and step == "2"
    assert line == pytest.approx(1.5, abs=0.01) and errors == []


@in_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_chart_has_the_colours_of_the_page(write, browse, dark):
    (paper, ink, texts, curve), errors, _ = browse(
        write(),
        """(() => { const style = (element) => getComputedStyle(element);
            const svg = document.querySelector(".wide svg");
            return [style(document.body).backgroundColor, style(document.body).color,
                [...svg.querySelectorAll("text")].map((text) => style(text).fill),
                style(svg.querySelector("[style*='--total']")).stroke]; })()""",
        dark=dark,
    )
    assert errors == []

    def brightness(color):
        return np.mean([int(part) for part in re.findall(r"\d+", color)])

    assert (brightness(paper) < 60) == dark and (brightness(ink) > 200) == dark
    assert curve == ink and len(texts) > 10
    assert all(abs(brightness(text) - brightness(paper)) > 120 for text in texts)


@in_browser
def test_the_copy_button_copies_or_selects_the_command(write, browse):
    answer, errors, _ = browse(
        write(),
        "[document.querySelector('#copy').textContent, String(getSelection())]",
        act="""Object.defineProperty(navigator, "clipboard", {value: {
            writeText: async () => { throw new Error("not allowed"); }}});
            document.querySelector("#copy").click();
            await new Promise((resolve) => setTimeout(resolve, 50))""",
    )
    assert answer == ["Selected", NASTY] and errors == []
    answer, errors, _ = browse(
        write(),
        "[document.querySelector('#copy').textContent, window.copied]",
        act="""Object.defineProperty(navigator, "clipboard", {value: {
            writeText: async (text) => { window.copied = text; }}});
            document.querySelector("#copy").click();
            await new Promise((resolve) => setTimeout(resolve, 50))""",
    )
    assert answer == ["Copied", NASTY] and errors == []


@in_browser
def test_nothing_is_wider_than_a_phone(write, browse):
    # A frame inside a page: desktop browsers make no window as narrow as a phone.
    page = write(command="python x.py " + "x" * 400)
    inner = html.escape(page.read_text("utf-8"))
    page.write_text(
        "<!DOCTYPE html><html><head></head><body>"
        f'<iframe style="width: 375px; height: 700px; border: 0" srcdoc="{inner}"></iframe>'
        "</body></html>",
        "utf-8",
    )
    answer, errors, _ = browse(
        page,
        """(() => { const inside = document.querySelector("iframe").contentDocument;
            return [inside.documentElement.clientWidth, inside.documentElement.scrollWidth,
                inside.querySelectorAll("img").length,
                [...inside.querySelectorAll(".chart svg")].map((svg) => svg.clientWidth)]; })()""",
    )
    assert answer == [375, 375, 11, [0, 343]] and errors == []  # the narrow chart
