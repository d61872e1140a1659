"""The interactive page in a real browser: what a reader sees and does, and that geometry stays in order."""

import copy
import itertools
import json
import math
import shutil
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from kilograd.viz.page import page
from tests.viz import diagrams

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --force-device-scale-factor=1"
).split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


class Page:
    """One page opened in the browser; `js` evaluates, `kilograd` reads what the page says of itself."""

    def __init__(self, browser, file):
        self.browser, self.file = browser, file

    def open(self, data, title="A graph", size=(1400, 900), motion=False, dark=False, anchor=""):
        self.file.write_text(page(data, title), "utf-8")
        self.metrics(*size)
        media = {
            "prefers-reduced-motion": "no-preference" if motion else "reduce",
            "prefers-color-scheme": "dark" if dark else "light",
        }
        features = [{"name": name, "value": value} for name, value in media.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.browser.get_log("browser")
        self.browser.get("about:blank")  # a change of the anchor alone would not load again
        self.browser.get(self.file.as_uri() + anchor)
        self.until("window.kilograd && kilograd.ready !== null")
        return self

    def metrics(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def js(self, expression, *arguments):
        return self.browser.execute_script(f"return ({expression})", *arguments)

    def until(self, expression, seconds=10):
        end = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def frames(self):
        """Waits until what has been asked for is painted."""
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def __getattr__(self, name):
        return self.js(f"kilograd.{name}")

    def click(self, id):
        self.js("document.getElementById(arguments[0]).click()", id)
        self.frames()

    def text(self, id):
        return self.js("document.getElementById(arguments[0]).innerText", id)

    def key(self, key, selector="#drawing"):
        from selenium.webdriver.common.by import By

        self.browser.find_element(By.CSS_SELECTOR, selector).send_keys(key)
        self.frames()

    def box(self, id):
        return next(box for box in self.boxes if box["id"] == id)

    def on_screen(self, id, fx=0.5, fy=0.5):
        """The window's coordinates of a place in a box: (0, 0) its top left corner, (1, 1) its bottom right."""
        box, camera = self.box(id), self.camera
        top = self.js("document.getElementById('stage').getBoundingClientRect().top")
        x = camera["x"] + camera["k"] * (box["x"] + fx * box["w"])
        return x, top + camera["y"] + camera["k"] * (box["y"] + fy * box["h"])

    def mouse(self, kind, x, y, **more):
        event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1, **more}
        self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def press(self, x, y, times=1):
        for count in range(1, times + 1):
            self.mouse("mousePressed", x, y, clickCount=count)
            self.mouse("mouseReleased", x, y, clickCount=count)
        self.frames()

    def type_search(self, text):
        self.js(
            "(q => { q.value = arguments[0]; q.dispatchEvent(new Event('input')) })(document.getElementById('query'))",
            text,
        )

    def problems(self):
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture
def show(browser, tmp_path):
    shown = Page(browser, tmp_path / "page.html")
    yield shown.open
    assert (
        shown.problems() == []
    )  # no error, no warning, nothing the content security policy refused


# ------------------------------------------------------------------------------------------ geometry


def overlap(a, b):
    slack = 0.01
    return (
        min(a["x"] + a["w"], b["x"] + b["w"]) - max(a["x"], b["x"]) > slack
        and min(a["y"] + a["h"], b["y"] + b["h"]) - max(a["y"], b["y"]) > slack
    )


def on_border(point, box, slack=0.01):
    x, y = point[0] - box["x"], point[1] - box["y"]
    inside = -slack <= x <= box["w"] + slack and -slack <= y <= box["h"] + slack
    return inside and min(abs(x), abs(y), abs(x - box["w"]), abs(y - box["h"])) < slack


def tip_of(edge):
    """The arrow's tip, written in the path with one decimal."""
    return [float(number) for number in edge["head"][1:].split("L")[0].split(",")]


def check_geometry(p, data, margin=True):
    """No two boxes overlap but a group and its inside; curves join boxes and ports and have no corners."""
    # In one go: it may be moving.
    shown = p.js("(({boxes, edges, ports, opened}) => ({boxes, edges, ports, opened}))(kilograd)")
    boxes = {box["id"]: box for box in shown["boxes"]}
    ports = shown["ports"]
    groups = data["groups"]
    opened = {*shown["opened"], data["root"]}
    for gid in opened:
        children = [boxes[child] for child in groups[gid]["children"]]
        for i, a in enumerate(children):
            assert all(not overlap(a, b) for b in children[i + 1 :]), (gid, a)
        if gid != data["root"]:
            outer = boxes[gid]
            for child in children:
                assert child["x"] >= outer["x"] and child["y"] >= outer["y"] + (32 if margin else 0)
                assert child["x"] + child["w"] <= outer["x"] + outer["w"]
                assert child["y"] + child["h"] <= outer["y"] + outer["h"]
    for edge in shown["edges"]:
        ends = ((edge["from"], edge["points"][0]), (edge["to"], edge["points"][-1]))
        for side, (end, point) in enumerate(ends):
            closed = end in boxes and not boxes[end]["open"]
            if closed and side == 1:
                assert on_border(tip_of(edge), boxes[end], slack=0.06), (edge, boxes[end])
            elif closed:
                assert on_border(point, boxes[end]), (edge, boxes[end])
            elif end in boxes and not margin:  # still opening: the curve crosses its border
                crossing = edge["points"][3] if side == 0 else edge["points"][-4]
                assert on_border(crossing, boxes[end]), edge
            elif margin:
                assert min(math.dist(point, port) for port in ports) < 0.01, edge
    return boxes


def test_boxes_and_edges_of_a_flat_graph_stand_where_the_layout_puts_them(show):
    data = diagrams.ten()
    p = show(data)
    layout = data["groups"][""]["layout"]
    for box in p.boxes:
        assert [box["x"], box["y"], box["w"], box["h"]] == pytest.approx(layout["boxes"][box["id"]])
    assert len(p.boxes) == 10
    check_geometry(p, data)
    for drawn, edge in zip(p.edges, layout["edges"], strict=True):
        np.testing.assert_allclose(drawn["points"][:-1], edge["points"][:-1], atol=1e-9)


@pytest.mark.parametrize("direction", ["TB", "LR"])
def test_nothing_overlaps_whatever_is_open(show, direction):
    data = diagrams.network(3, direction)
    p = show(data)
    rng = np.random.default_rng(0)
    gids = [gid for gid in data["groups"] if gid]
    for _ in range(12):
        chosen = str(rng.choice(gids))
        p.js("select(items.get(arguments[0]))", chosen)
        p.js("toggle(items.get(arguments[0]))", chosen)
        boxes = check_geometry(p, data)
        assert p.visible == sum(
            not gid_like for gid_like in (box["id"] in data["groups"] for box in boxes.values())
        )
    p.click("open-all")
    check_geometry(p, data)
    assert p.visible == p.total == len(data["blocks"])


def test_an_open_group_has_the_size_the_contract_says_and_moves_what_is_below(show):
    data = diagrams.network(3)
    p = show(data)
    before = {box["id"]: box for box in p.boxes}
    p.js("toggle(items.get('forward/layer0'))")
    after = {box["id"]: box for box in p.boxes}
    layout = data["groups"]["forward/layer0"]["layout"]
    assert after["forward/layer0"]["h"] == pytest.approx(layout["height"] + 32 + 16)
    assert after["forward/layer0"]["w"] == pytest.approx(layout["width"] + 2 * 16)
    grown = after["forward/layer0"]["h"] - before["forward/layer0"]["h"]
    moved = [
        after[below]["y"] - before[below]["y"]
        for below in ("forward/layer1", "forward/layer2", "loss")
    ]
    assert moved[0] == pytest.approx(moved[1])
    assert all(grown <= by <= grown + 4 * 96 for by in moved)  # and some air for the curves
    assert after["input"]["y"] == pytest.approx(before["input"]["y"])


def test_curves_that_were_smooth_stay_smooth_when_stretched(show):
    data = diagrams.network(3)
    p = show(data)
    p.click("open-all")
    bends = 0
    for edge in p.edges:
        points = np.array(edge["points"])
        for i in range(3, len(points) - 1, 3):
            before, after = points[i] - points[i - 1], points[i + 1] - points[i]
            lengths = np.linalg.norm(before) * np.linalg.norm(after)
            if lengths > 1e-9:
                bends += 1
                assert before @ after / lengths > 0.99, (edge["from"], edge["to"], i)
    assert bends > 50


def samples(points):
    """Points along a chain of cubic curves."""
    t = np.linspace(0, 1, 24)[:, None]
    for i in range(0, len(points) - 1, 3):
        a, b, c, d = np.array(points[i : i + 4])
        yield from (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def through_boxes(boxes, edges, groups, inset=3):
    """The edges that run through a box that is no end of theirs."""
    found = []
    for edge in edges:
        others = [
            boxes[c]
            for c in groups[edge["group"]]["children"]
            if c not in (edge["from"], edge["to"])
        ]
        corners = np.array(
            [[b["x"], b["y"], b["x"] + b["w"], b["y"] + b["h"]] for b in others]
        ).reshape(-1, 4)
        for x, y in samples(edge["points"]):
            low, high = corners[:, :2] + inset, corners[:, 2:] - inset
            if ((low < [x, y]) & ([x, y] < high)).all(1).any():
                found.append((edge["group"], edge["from"], edge["to"]))
                break
    return found


@pytest.mark.parametrize("direction", ["TB", "LR"])
def test_edges_run_around_groups_that_are_opened(show, direction):
    data = diagrams.network(2, direction)
    p = show(data)
    edges = [
        {**edge, "group": gid}
        for gid, group in data["groups"].items()
        for edge in group["layout"]["edges"]
    ]
    boxes = {}
    for group in data["groups"].values():
        for child, (x, y, w, h) in group["layout"]["boxes"].items():
            boxes[child] = {"x": x, "y": y, "w": w, "h": h}
    assert through_boxes(boxes, edges, data["groups"]) == []  # as they were laid out
    for gid in [gid for gid in data["groups"] if gid and gid not in p.opened]:
        p.js("(reveal(items.get(arguments[0])), toggle(items.get(arguments[0])))", gid)
        boxes = {box["id"]: box for box in p.boxes}
        assert through_boxes(boxes, p.edges, data["groups"]) == []


def test_a_curve_around_a_closed_group_runs_around_it_when_it_is_open(show):
    """One wide bow beside the group, as Graphviz draws it: its control points alone do not tell that."""
    d = diagrams.Diagram()
    for i in range(6):
        d.block(f"inner{i}", "group")
    d.block("a")
    d.block("b")
    d.edge("a", "b")
    data = d.data()
    layout = data["groups"][""]["layout"]
    layout.update(width=100, height=140)
    layout["boxes"] = {"a": [0, 0, 60, 20], "group": [0, 60, 60, 20], "b": [0, 120, 60, 20]}
    layout["edges"][0]["points"] = [[30, 20], [110, 50], [110, 90], [30, 120]]
    p = show(data)

    def crossing():
        boxes = {box["id"]: box for box in p.boxes}
        return through_boxes(boxes, p.edges, data["groups"])

    assert crossing() == []
    p.js("toggle(items.get('group'))")
    assert p.box("group")["w"] > 400
    assert crossing() == []


# A straight line for every two or three intervals that share no, some, or all of their length.
SPANS = [
    [(0, 10, 30)],
    [(0, 10, 30), (20, 40, 50)],
    [(0, 10, 30), (5, 15, 40)],
    [(0, 100, 500), (10, 90, 100)],
    [(0, 50, 60), (0, 50, 90), (50, 60, 10)],
    [(3.3, 9.1, 20.7), (4.4, 9.1, 5), (3.3, 30, 31)],
]


@pytest.mark.parametrize("spans", SPANS)
def test_the_stretching_map_gives_each_span_its_room_and_shrinks_nothing(show, spans):
    p = show(diagrams.ten())
    at = np.linspace(-10, 120, 391)
    stretched = np.array(
        p.js(
            "(map => arguments[1].map(map))(stretch(arguments[0].map(([start, end, size]) => ({start, end, size}))))",
            spans,
            at.tolist(),
        )
    )
    assert (np.diff(stretched) >= np.diff(at) - 1e-9).all()
    for start, end, size in spans:
        low, high = np.interp([start, end], at, stretched)
        assert high - low >= size - 0.5  # `at` is a grid
    assert stretched[0] == at[0]


def test_random_spans_get_their_room(show):
    p = show(diagrams.ten())
    rng = np.random.default_rng(1)
    for _ in range(30):
        start = rng.uniform(0, 100, rng.integers(1, 9))
        end = start + rng.uniform(0.1, 40, len(start))
        size = (end - start) * rng.uniform(1, 10, len(start))
        spans = np.stack([start, end, size], 1).tolist()
        out = p.js(
            "(map => arguments[0].map(([start, end]) => [map(start), map(end)]))"
            "(stretch(arguments[0].map(([start, end, size]) => ({start, end, size}))))",
            spans,
        )
        for (_, _, room), (low, high) in zip(spans, out, strict=True):
            assert high - low >= room - 1e-6


# ------------------------------------------------------------------------------------ opening, moving


def test_the_opened_group_stays_under_the_pointer(show):
    p = show(diagrams.network())
    corner = p.on_screen("forward/layer2", 0, 0)
    p.press(*p.on_screen("forward/layer2"), times=2)
    assert "forward/layer2" in p.opened
    assert p.on_screen("forward/layer2", 0, 0) == pytest.approx(corner, abs=0.5)
    p.press(corner[0] + 8, corner[1] + 8)  # the handle closes it
    assert "forward/layer2" not in p.opened
    assert p.on_screen("forward/layer2", 0, 0) == pytest.approx(corner, abs=0.5)


def test_opening_is_animated_without_overlaps_and_ends_in_place(show):
    data = diagrams.network(3)
    p = show(data, motion=True)
    p.js("toggle(items.get('forward/layer1'))")
    heights = []
    for _ in range(60):
        state = p.js("[scene.at.get('forward/layer1').h, items.get('forward/layer1').openness]")
        heights.append(state[0])
        check_geometry(p, data, margin=False)
        if state[1] == 1:
            break
    assert state[1] == 1
    layout = data["groups"]["forward/layer1"]["layout"]
    assert heights[-1] == pytest.approx(layout["height"] + 48)
    assert heights == sorted(heights)
    p.js("toggle(items.get('forward/layer1'))")
    p.js(
        "toggle(items.get('forward/layer1'))"
    )  # clicked again while it moves: the first movement ends at once
    p.until("items.get('forward/layer1').openness === 1")
    check_geometry(p, data)


def test_drag_moves_and_does_not_select(show):
    p = show(diagrams.ten())
    x, y = p.on_screen("mm")
    camera = p.camera
    p.mouse("mousePressed", x, y)
    for step in range(1, 6):
        p.mouse("mouseMoved", x + 20 * step, y + 10 * step, buttons=1)
    p.mouse("mouseReleased", x + 100, y + 50)
    p.frames()
    assert p.camera == pytest.approx(
        {"x": camera["x"] + 100, "y": camera["y"] + 50, "k": camera["k"]}
    )
    assert p.selected is None
    assert p.js("document.getElementById('world').getAttribute('transform')").startswith(
        f"translate({p.js('String(kilograd.camera.x)')}"
    )


def test_the_wheel_zooms_at_the_cursor(show):
    p = show(diagrams.ten())
    spot = p.on_screen("loss", 1, 1)
    k = p.camera["k"]
    p.mouse("mouseWheel", *spot, deltaX=0, deltaY=-200)
    p.until(f"kilograd.camera.k > {k}")
    assert p.on_screen("loss", 1, 1) == pytest.approx(spot, abs=0.6)
    for _ in range(40):
        p.mouse("mouseWheel", *spot, deltaX=0, deltaY=-400)
    p.until("kilograd.camera.k === 4")


def test_two_fingers_pinch(show):
    p = show(diagrams.ten(), size=(390, 844))
    x, y = p.on_screen("add")
    k = p.camera["k"]

    def touch(kind, gap):
        points = [{"x": x - gap, "y": y, "id": 0}, {"x": x + gap, "y": y, "id": 1}] if gap else []
        p.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 40)
    for gap in range(45, 85, 5):
        touch("touchMove", gap)
    touch("touchEnd", 0)
    p.frames()
    assert p.camera["k"] == pytest.approx(2 * k, rel=0.02)
    assert p.on_screen("add") == pytest.approx((x, y), abs=1.5)
    assert p.selected is None


def test_keys(show):
    from selenium.webdriver.common.keys import Keys

    p = show(diagrams.network(2))
    k = p.camera["k"]
    p.key("+")
    assert p.camera["k"] == pytest.approx(1.4 * k)
    p.key("-")
    assert p.camera["k"] == pytest.approx(k)
    x = p.camera["x"]
    p.key(Keys.ARROW_RIGHT)
    assert p.camera["x"] == pytest.approx(x - 80)
    p.key("0")
    box = p.js("({w: scene.w * kilograd.camera.k, h: scene.h * kilograd.camera.k})")
    assert box["w"] <= 1400 - 47 and box["h"] <= 900
    p.key("n")
    p.key("n")
    p.key("p")
    assert p.step == 1
    p.js("select(items.get('backward'))")
    p.key(Keys.ENTER)
    assert "backward" in p.opened
    p.key(Keys.ESCAPE)
    assert p.selected is None and p.js("document.getElementById('panel').hidden")
    p.key("/")
    assert p.js("document.activeElement.id") == "query"
    p.key("n", "#query")  # typed, not stepped
    assert p.step == 1 and p.js("document.getElementById('query').value") == "n"


def test_zoom_buttons_and_fit(show):
    p = show(diagrams.flat(500, 600))
    k = p.camera["k"]
    p.click("zoom-in")
    assert p.camera["k"] == pytest.approx(1.4 * k)
    p.click("zoom-out")
    p.click("fit")
    for corner in ("b0", "b24", "b475", "b499"):
        x, y = p.on_screen(corner)
        assert 0 < x < 1400 and 48 < y < 850


def test_levels_open_all_and_close_all(show):
    data = diagrams.network(3)
    p = show(data)
    p.click("close-all")
    assert p.opened == [] and p.visible == 2
    assert p.text("counts") == f"2 of {len(data['blocks'])} blocks shown"

    def level(value):
        p.js(
            "(s => { s.value = arguments[0]; s.dispatchEvent(new Event('change')) })(document.getElementById('level'))",
            value,
        )

    assert p.js("[...document.getElementById('level').options].map(o => o.value)") == [
        "",
        "1",
        "2",
        "3",
        "4",
    ]
    level("2")
    assert p.opened == ["forward", "backward", "update"]
    level("3")
    assert "forward/layer0" in p.opened and "forward/layer0/linear1" not in p.opened
    level("4")
    assert p.visible == p.total
    p.click("close-all")
    p.click("open-all")
    assert p.visible == p.total
    assert p.js("document.getElementById('level').value") == "4"
    p.js("toggle(items.get('forward'))")
    assert p.js("document.getElementById('level').value") == ""
    p.js("toggle(items.get('forward'))")
    assert p.text("counts") == f"{p.total} blocks"


def test_open_all_stops_at_three_thousand(show):
    d = diagrams.Diagram()
    for i in range(5000):
        d.block(f"b{i}", f"group{i // 500}")
    p = show(d.data())
    p.click("open-all")
    assert p.visible == 3000
    assert "3,000" in p.text("message")


# ------------------------------------------------------------------------------- selection and search


def test_a_click_selects_and_shows_details_inputs_and_outputs(show):
    p = show(diagrams.ten())
    p.press(*p.on_screen("mm"))
    assert p.selected == "mm"
    text = p.text("panel")
    for part in ("matmul", "Operation · forward · step 1 of 5", "12.3 µs", "net.py:12"):
        assert part in text
    assert p.js("[...document.querySelectorAll('#panel pre')].map(e => e.textContent)") == [
        "g @ b.T\na.T @ g"
    ]
    links = "[...document.querySelectorAll('#panel h3.{} + ul a')].map(a => a.textContent)"
    assert p.js(links.format("input")) == ["x", "w"]
    assert p.js(links.format("output")) == ["add", "∂loss/∂w"]
    assert p.js("document.querySelectorAll('path.edge.input, path.edge.output').length") == 2
    p.js("document.querySelector('#panel h3.output + ul a').click()")
    assert p.selected == "add"
    p.press(20, 700)  # the background
    assert p.selected is None
    assert p.js("document.querySelectorAll('.edge.input').length") == 0


def test_inputs_and_outputs_are_followed_through_the_borders_of_groups(show):
    data = diagrams.network(3)
    p = show(data)

    def ends(id):
        p.js("select(items.get(arguments[0]), {reveals: true})", id)
        links = "[...document.querySelectorAll('#panel h3.{} + ul a')].map(a => decodeURIComponent(a.hash.slice(1)))"
        return p.js(links.format("input")), p.js(links.format("output"))

    assert ends("mm1.0") == (["sum0", "w1.0"], ["add1.0", "matmul_b1.0"])
    assert sorted(ends("sum0")[1]) == ["mm1.0", "sum1"]
    assert ends("sum1")[0] == ["norm1", "sum0"]
    # Every visible piece of the way is highlighted: sum0 → layer1's port → linear1's port → mm1.0.
    pieces = p.js(
        "[...edgesInto(items.get('mm1.0'))].map(e => [e.group.id, e.from, e.to]).filter(([, from]) => !from.startsWith('w'))"
    )
    assert sorted(pieces) == sorted(
        [
            ["forward/layer1/linear1", "in:sum0", "mm1.0"], ["forward/layer1", "in:sum0", "forward/layer1/linear1"],
            ["forward", "forward/layer0", "forward/layer1"], ["forward/layer0", "sum0", "out:sum0"],
        ]
    )  # fmt: skip


def test_search_counts_steps_through_hits_and_opens_their_groups(show):
    from selenium.webdriver.common.keys import Keys

    p = show(diagrams.network(2))
    p.type_search("model.py:21")  # a detail
    assert p.text("hits") == "2"
    assert p.js("document.querySelectorAll('.mark.hit').length") == 1
    p.key(Keys.ENTER, "#query")
    assert (p.selected, p.text("hits")) == ("mm1.0", "1 / 2")
    assert {"forward/layer1", "forward/layer1/linear1"} <= set(p.opened)
    x, y = p.on_screen("mm1.0")
    assert 300 < x < 1100 and 300 < y < 600
    assert p.js("document.activeElement.id") == "query"
    p.key(Keys.ARROW_DOWN, "#query")
    assert p.selected == "mm1.1"
    p.key(Keys.ARROW_DOWN, "#query")
    assert p.selected == "mm1.0"  # around
    p.key(Keys.ARROW_UP, "#query")
    assert p.selected == "mm1.1"
    p.type_search("MATMUL backward")  # all words, in any case
    assert p.text("hits") == "0"
    p.type_search("   ")
    assert p.text("hits") == ""


def test_a_deep_link_selects_and_selecting_makes_one(show):
    data = diagrams.network(2)
    p = show(data, anchor="#grad%20w0.1")
    assert p.selected == "grad w0.1"
    assert "backward/layer0" in p.opened
    p.js("select(items.get('input'))")
    assert p.js("location.hash") == "#input"
    p.js("location.hash = 'mm0.0'")
    p.until("kilograd.selected === 'mm0.0'")
    p.js("location.hash = '%E0%A4%A'")  # no such thing, and not even an encoding
    p.frames()
    assert p.selected == "mm0.0"


def test_legend_dims_kinds_and_phases(show):
    p = show(diagrams.ten())
    names = p.js("[...document.querySelectorAll('#legend button')].map(b => b.textContent)")
    assert names == [
        "Forward", "Backward", "Parameter", "Data", "Constant", "Random", "Output", "Gradient",
    ]  # fmt: skip
    dim = "[...document.querySelectorAll('.block.dim')].map(e => e.dataset.id)"
    p.js("document.querySelectorAll('#legend button')[2].click()")
    assert p.js(dim) == ["w", "b"]
    assert p.js("document.querySelectorAll('#legend button')[2].ariaPressed") == "false"
    assert p.js("document.querySelectorAll('.edge.dim').length") == 1
    p.js("document.querySelectorAll('#legend button')[1].click()")
    assert p.js(dim) == ["w", "b", "g"]
    p.js("[1, 2].forEach(i => document.querySelectorAll('#legend button')[i].click())")
    assert p.js(dim) == []


def fill_of(p, id):
    return p.js(
        'getComputedStyle(document.querySelector(`[data-id="${arguments[0]}"] .face:not(.stack)`)).fill',
        id,
    )


@pytest.mark.parametrize("dark", [False, True])
def test_colours_say_what_a_block_is(show, dark):
    p = show(diagrams.network(2), dark=dark)
    p.click("open-all")
    p.js("[...document.querySelectorAll('#level')]")

    def hue(id):
        p.js("select(items.get(arguments[0]), {reveals: true})", id)
        p.frames()
        r, g, b = (int(part) for part in fill_of(p, id)[4:-1].split(", "))
        return r, g, b

    r, g, b = hue("w0.0")
    assert b > r + 15 and b > g + 5  # parameters are blue
    r, g, b = hue("input")
    assert r > g + 15 and r > b + 15  # data is red
    seen = {hue(id) for id in ("mm0.0", "matmul_a0.0", "step0.0")}
    assert len(seen) == 3  # forward, backward and update operations
    p = show(diagrams.ten(), dark=dark)
    r, g, b = (int(part) for part in fill_of(p, "two")[4:-1].split(", "))
    assert g > r + 5 and g > b + 5  # constants are green


def test_colour_by_time(show):
    p = show(diagrams.ten())
    plain = fill_of(p, "mm")
    p.click("heat")
    hot, warm = fill_of(p, "mm"), fill_of(p, "mul")
    assert len({plain, hot, warm}) == 3
    p.click("heat")
    assert fill_of(p, "mm") == plain
    data = diagrams.ten()
    for block in data["blocks"].values():
        block.pop("heat", None)
    assert show(data).js("document.getElementById('heat').hidden")


# ----------------------------------------------------------------------------------------- stepping


def test_stepping_goes_through_the_execution_in_order(show):
    data = diagrams.network(2)
    p = show(data)
    order = sorted((b["order"], id) for id, b in data["blocks"].items() if b["order"] is not None)
    assert p.steps == [id for _, id in order]
    p.click("step-next")
    p.click("step-next")
    assert p.step == 2
    assert "Forward" in p.text("step-text") and f"2 / {len(order)}" in p.text("step-text")
    classes = 'document.querySelector(`[data-id="${arguments[0]}"]`).className.baseVal'
    assert "done" in p.js(classes, "mm0.0") and "current" in p.js(classes, "add0.0")
    assert "pending" in p.js(classes, "gelu0") and "timeless" in p.js(classes, "w0.0")
    assert p.js("document.querySelectorAll('[data-id=\"mm0.0\"] .badge').length") == 1
    p.click("step-last")
    assert p.step == len(order) and "Update" in p.text("step-text")
    assert p.js("document.getElementById('step-next').disabled")
    x, y = p.on_screen(order[-1][1])
    assert 300 < x < 1100 and 200 < y < 700
    p.js(
        "(s => { s.value = 20; s.dispatchEvent(new Event('input')) })(document.getElementById('step-slider'))"
    )
    assert p.step == 20
    p.click("step-first")
    assert p.step == 0 and "not started" in p.text("step-text")
    assert p.js("document.querySelectorAll('.pending, .done').length") == 0


def test_playing_runs_to_the_end_and_stops(show):
    p = show(diagrams.ten())
    p.js("document.getElementById('speed').value = '10'")
    p.click("step-play")
    assert p.text("step-play") == "Pause"
    p.until("kilograd.step === 5")
    p.until("document.getElementById('step-play').innerText === 'Play'")
    p.click("step-play")  # from the start again
    assert p.step < 5
    p.click("step-play")
    stopped = p.step
    time.sleep(0.3)
    assert p.step == stopped


def test_without_an_order_there_is_nothing_to_step_through(show):
    data = diagrams.ten()
    for block in data["blocks"].values():
        block["order"] = None
    p = show(data)
    assert p.js("document.getElementById('stepper').hidden")
    p.key("n")
    assert p.step == 0


# --------------------------------------------------------------------------------- texts and safety

NASTY = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\u2028\u2029&amp;"
    "\"'`${window.hacked = 1}<!--\U0001f600 ü µ"
)


def test_texts_of_the_user_are_shown_and_never_executed(show):
    data = diagrams.ten()
    block = data["blocks"]["mm"]
    block["title"], block["lines"], block["details"] = (
        NASTY,
        [NASTY],
        [[NASTY, NASTY], ["formula", NASTY]],
    )
    data["groups"][""]["layout"]["edges"][0]["label"] = NASTY
    p = show(data, title=NASTY)
    p.js("select(items.get('mm'), {reveals: true})")
    p.frames()
    assert p.js("window.hacked === undefined && document.images.length === 0")
    assert p.js("document.title").startswith("</script>")
    assert p.js("document.querySelector('h1').textContent") == NASTY
    assert p.js("document.querySelector('#panel h2').textContent") == NASTY
    assert p.js("document.querySelector('#panel pre').textContent") == NASTY
    data["blocks"]["add"]["title"] = "control \x07 and half a pair \ud83d"
    ET.fromstring(show(data).js("kilograd.picture()"))  # XML allows neither


def test_odd_ids(show):
    d = diagrams.Diagram()
    names = [
        "__proto__",
        "constructor",
        "in:x",
        "a b/c",
        "<b>",
        "日本",
        '"',
        "#",
        "%41",
        "hasOwnProperty",
    ]
    for i, name in enumerate(names):
        d.block(name, "toString", title=f"t{i}")
    for a, b in itertools.pairwise(names):
        d.edge(a, b)
    p = show(json.loads(json.dumps(d.data())))
    p.click("open-all")
    assert p.visible == len(names)
    for name in names:
        p.js("select(items.get(arguments[0]))", name)
        assert p.selected == name
        p.browser.refresh()
        p.until("window.kilograd && kilograd.ready !== null")
        assert p.selected == name


def test_the_policy_forbids_scripts_that_are_not_the_pages_own(show):
    p = show(diagrams.ten())
    p.js(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'}))"
    )
    assert p.js("window.hacked === undefined")
    refused = p.problems()
    assert len(refused) == 1 and "Content Security Policy" in refused[0]


def test_texts_stay_in_their_boxes(show):
    d = diagrams.Diagram()
    d.block(
        "long",
        title="a_function_with_quite_a_long_name " * 3,
        lines=["float32 [1, 2, 3, 4, 5, 6, 7, 8]" * 3],
    )
    d.block("tight", title="convolution", lines=["float32 [64, 10]", "second", "third", "fourth"])
    d.block("empty", title="")
    d.block("wide", title="W" * 40)
    d.block("inner", "group with a long title of its own", title="x")
    data = d.data()
    boxes = data["groups"][""]["layout"]["boxes"]
    boxes["long"][2] = 120
    boxes["tight"][2:] = [108, 40]  # too small for four lines
    boxes["group with a long title of its own"][2] = 100
    p = show(data)

    def check():
        return p.js(
            """[...document.querySelectorAll('#world .block')].flatMap(block => {
              const face = block.querySelector('.face:not(.stack)').getBoundingClientRect();
              return [...block.querySelectorAll('text')].filter(t => {
                const r = t.getBoundingClientRect();
                return r.width && (r.left < face.left || r.right > face.right + .5 || r.top < face.top - 2 || r.bottom > face.bottom + 2);
              }).map(t => t.textContent);
            })"""
        )

    assert check() == []
    titles = p.js("[...document.querySelectorAll('#world .block .title')].map(t => t.textContent)")
    assert titles[0].endswith("…") and titles[1] == "convolution"
    assert p.js("document.querySelectorAll('[data-id=\"tight\"] .line').length") == 1
    p.click("open-all")
    assert check() == []


@pytest.mark.parametrize("size", [(1400, 900), (800, 600), (390, 844)])
@pytest.mark.parametrize("dark", [False, True])
def test_everything_of_the_page_fits_the_screen(show, size, dark):
    p = show(
        diagrams.network(2),
        title="A rather long title of a network that has many layers",
        size=size,
        dark=dark,
    )
    p.js("select(items.get('mm0.0'), {reveals: true})")
    p.click("step-next")
    assert p.js(
        "document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight"
    )
    for id in (
        "query",
        "hit-next",
        "step-first",
        "step-last",
        "step-slider",
        "step-text",
        "speed",
        "panel",
        "drawing",
    ):
        box = p.js("document.getElementById(arguments[0]).getBoundingClientRect().toJSON()", id)
        assert box["left"] >= -0.5 and box["right"] <= size[0] + 0.5 and box["top"] >= 0, id
        assert box["bottom"] <= size[1] + 0.5 and box["width"] > 0, id
    assert p.js("document.getElementById('stage').clientHeight") > size[1] / 2
    # The selected block lies where the panel does not cover it.
    x, y = p.on_screen("mm0.0")
    assert p.js(
        "document.elementFromPoint(arguments[0], arguments[1]).closest('#drawing') !== null", x, y
    )


def test_controls_have_names(show):
    p = show(diagrams.network(2))
    nameless = p.js(
        "[...document.querySelectorAll('button, input, select')].filter(e => !e.hidden && "
        "!(e.ariaLabel || e.innerText.trim() || e.labels?.[0]?.innerText.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert p.js("document.getElementById('step-text').ariaLive") == "polite"
    assert p.js("document.getElementById('hits').getAttribute('role')") == "status"


# -------------------------------------------------------------------------------------- large graphs


def test_five_thousand_blocks_are_shown_in_less_than_three_seconds(show):
    p = show(diagrams.flat())
    assert p.ready < 3000
    assert p.visible == 5000
    # Only what is near the viewport is in the document, and texts only where they can be read.
    assert 100 < p.js("document.querySelectorAll('#world .block').length") < 1500
    p.click("fit")
    assert p.js("document.querySelectorAll('#world text').length") == 0
    assert p.js("document.querySelectorAll('#world *').length") < 100
    drawn = p.js(
        "[...document.querySelectorAll('#world path.far')].reduce((n, e) => n + e.getAttribute('d').split('M').length - 1, 0)"
    )
    assert drawn == 5000
    p.press(*p.on_screen("b2512"))
    assert p.selected == "b2512"


def test_panning_a_large_graph_is_smooth(show):
    p = show(diagrams.flat())
    milliseconds = p.browser.execute_async_script(
        """const done = arguments[0], times = [];
        let left = 40, last = performance.now();
        (function frame(now) {
          times.push(now - last);
          last = now;
          document.getElementById('drawing').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown', bubbles: true}));
          if (left--) requestAnimationFrame(frame);
          else done(times.sort((a, b) => a - b)[20]);
        })(last)"""
    )
    assert milliseconds < 50
    assert p.camera["y"] < -2000


def test_what_comes_into_view_is_drawn(show):
    p = show(diagrams.flat())
    for id in ("b4999", "b2500", "b0", "b24"):
        p.js("select(items.get(arguments[0]), {reveals: true})", id)
        p.frames()
        assert p.js('document.querySelectorAll(`[data-id="${arguments[0]}"]`).length', id) == 1
        x, y = p.on_screen(id)
        bounds = p.js(
            'document.querySelector(`[data-id="${arguments[0]}"] .face`).getBoundingClientRect().toJSON()',
            id,
        )
        assert bounds["left"] < x < bounds["right"] and bounds["top"] < y < bounds["bottom"]


# ------------------------------------------------------------------------------------------- saving


def test_the_saved_picture_stands_alone(show, tmp_path):
    data = diagrams.network(2)
    p = show(data, title="My net / 1")
    p.click("open-all")
    p.click("zoom-out")
    p.browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": False},
    )
    p.click("save")
    file = tmp_path / "My-net-1.svg"
    end = time.monotonic() + 10
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)
    text = file.read_text("utf-8")
    picture = ET.fromstring(text)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    for foreign in ("var(", "class=", "style=", "rgba(", "<script", "NaN", "undefined"):
        assert foreign not in text
    words = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    for block in data["blocks"].values():
        assert block["title"] in words
    x, y, width, height = (float(number) for number in picture.get("viewBox").split())
    assert (x, y) == (-24, -24)
    assert width == pytest.approx(p.js("scene.w") + 48, abs=0.1)
    assert p.js("document.querySelectorAll('.picture').length") == 0
    fills = {element.get("fill") for element in picture.iter("{http://www.w3.org/2000/svg}rect")}
    assert len(fills) >= 6 and None not in fills


def test_edge_cases_of_size(show):
    empty = diagrams.Diagram()
    empty.group("")
    p = show(empty.data())
    assert (p.visible, p.text("counts")) == (0, "0 blocks")
    for id in ("fit", "zoom-in", "zoom-out", "save"):
        p.click(id)
    assert math.isfinite(p.camera["k"])
    one = diagrams.Diagram()
    one.block("only", "empty parent/inner")
    one.group("hollow")
    p = show(one.data())
    p.click("open-all")
    assert p.visible == 1 and p.text("counts") == "1 block"
    p.js("select(items.get('only'), {reveals: true})")
    p = show(diagrams.ten(), size=(200, 120))  # a small frame in a notebook
    p.click("fit")
    assert 0 < p.camera["k"] < 1


# ------------------------------------------------------------------------------- without a browser


def test_the_data_cannot_end_the_block_it_stands_in():
    data = diagrams.ten()
    data["blocks"]["mm"]["title"] = NASTY
    text = page(data, "t")
    inside = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(inside) == json.loads(json.dumps(data))
    assert not set("<>&\u2028\u2029") & set(inside)
    page(data, "lone surrogate \ud800").encode("utf-8")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda d: d.pop("root"), ValueError, "lacks 'root'"),
        (lambda d: d.update(root="nowhere"), ValueError, "'nowhere' is no group"),
        (lambda d: d.update(direction="RL"), ValueError, "'TB' or 'LR'"),
        (
            lambda d: d["groups"][""]["children"].append("ghost"),
            ValueError,
            "neither block nor group",
        ),
        (lambda d: d["groups"][""]["children"].append("x"), ValueError, "'x' lies in group"),
        (lambda d: d["groups"].update(x=d["groups"][""]), ValueError, "block and a group"),
        (lambda d: d["groups"][""]["children"].remove("x"), ValueError, "differ in 'x'"),
        (lambda d: d["blocks"].update(y=d["blocks"]["x"]), ValueError, "'y' lies in no group"),
        (
            lambda d: d["groups"][""]["layout"]["boxes"].update(x=[0, 0, 0, 5]),
            ValueError,
            "box of 'x'",
        ),
        (
            lambda d: d["groups"][""]["layout"]["boxes"].update(x=[math.nan, 0, 9, 5]),
            ValueError,
            "box of 'x'",
        ),
        (lambda d: d["groups"][""]["layout"]["edges"][0].update(to="ghost"), ValueError, "'ghost'"),
        (lambda d: d["groups"][""]["layout"]["edges"][0]["points"].pop(), ValueError, r"3n \+ 1"),
        (
            lambda d: d["groups"][""]["layout"]["edges"][0]["points"].clear(),
            ValueError,
            "0 control",
        ),
        (lambda d: d["groups"][""]["layout"].update(width=math.inf), ValueError, "."),
        (lambda d: d["blocks"]["x"].update(heat=object()), TypeError, "JSON"),
    ],
)
def test_data_that_contradicts_itself_is_refused(spoil, error, message):
    data = copy.deepcopy(diagrams.ten())
    spoil(data)
    with pytest.raises(error, match=message):
        page(data, "t")


def test_the_title_is_a_string():
    with pytest.raises(TypeError, match="title must be a string, not int"):
        page(diagrams.ten(), 3)
