"""Pictures of a pool: they say what the manager says, and are safe and small whatever it holds."""

import io
import re
import time
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request, SlidingWindowSpec
from pagedkv.inspection import PageState, PoolPicture, SharedPages
from pagedkv.inspection.labels import shown
from pagedkv.inspection.sharing import shared_pages
from pagedkv.inspection.states import LOOKS, shares_of_cells
from rich.console import Console

FULL = FullAttentionSpec(4, 1, 8, "float32")
WINDOW = SlidingWindowSpec(4, 1, 8, "float32", sliding_window=8)
SVG = "{http://www.w3.org/2000/svg}"


def manager_of(num_pages, *specs):
    groups = [CacheGroupSpec(spec) for spec in specs or (FULL,)]
    return CacheManager(num_pages, groups, max_model_len=1 << 20)


def start(manager, name, tokens):
    """A request whose tokens are all computed; None if there is no room."""
    request = Request(name, tokens)
    cached = manager.match(request)
    if not manager.allocate(request, request.num_tokens - cached, num_cached_tokens=cached):
        return None
    manager.commit(request, request.num_tokens)
    return request


def small():
    """12 pages: 1-3 shared by two, 4 of the second alone, 5-6 cached, 7 pinned, 8 free again."""
    manager = manager_of(12)
    first = start(manager, "first", range(12))
    second = start(manager, "second", range(13))
    gone = start(manager, "gone", range(100, 108))
    pinned = start(manager, "pinned", range(200, 205))
    pin = manager.pin(pinned)
    manager.free(gone)
    manager.free(pinned)
    return manager, (first, second, pin)


def named(counts):
    return {state.name: count for state, count in counts.items() if count}


def test_tells_the_states_of_pages():
    manager, _ = small()
    picture = manager.inspect()
    assert [PageState(state).name for state in picture.states] == (
        ["NULL"] + ["SHARED"] * 3 + ["RUNNING"] + ["CACHED"] * 2 + ["PINNED"] + ["EMPTY"] * 4
    )
    assert named(picture.counts) == {
        "NULL": 1,
        "EMPTY": 4,
        "CACHED": 2,
        "RUNNING": 1,
        "SHARED": 3,
        "PINNED": 1,
    }
    assert [(r.request_id, r.num_pages, r.num_shared) for r in picture.requests] == [
        ("first", 3, 3),
        ("second", 4, 3),
    ]
    assert picture.shared == [SharedPages(("first", "second"), 3, 1)]
    assert repr(picture) == (
        "PoolPicture(12 pages: null=1, empty=4, cached=2, running=1, shared=3, pinned=1)"
    )


def test_a_picture_does_not_change():
    manager, (first, second, _) = small()
    picture = manager.inspect()
    before = picture.counts
    manager.free(first)
    manager.free(second)
    assert picture.counts == before
    assert manager.inspect().counts[PageState.SHARED] == 0


def test_counts_pages_by_group():
    manager = manager_of(40, FULL, WINDOW)
    request = start(manager, "a", range(16))
    request.append(16)
    assert manager.allocate(request, 1)  # the window gives pages back
    full, window = manager.inspect().counts_by_group
    assert named(full) == {"RUNNING": 5}
    row = manager.page_ids(request, 1)
    assert (row == 0).any()
    assert window[PageState.RUNNING] == np.count_nonzero(row)
    assert window[PageState.CACHED] == np.count_nonzero(row == 0)


def test_an_unused_pool_has_a_picture():
    picture = manager_of(2).inspect()
    assert named(picture.counts) == {"NULL": 1, "EMPTY": 1}
    assert picture.requests == picture.shared == []
    ET.fromstring(picture.to_svg())
    assert "2 pages" in str(picture)


PROMPTS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.booleans()), max_size=12)


@given(PROMPTS, st.sampled_from([(FULL,), (FULL, WINDOW)]))
def test_says_what_the_manager_says(prompts, specs):
    manager = manager_of(60, *specs)
    running = []
    for number, (family, length, stays) in enumerate(prompts):
        request = start(manager, f"r{number}", [family * 1000 + i for i in range(length)])
        if request is None:
            continue
        if stays:
            running.append(request)
        else:
            manager.free(request)
        if length >= 4 and stays and number % 5 == 4:
            manager.pin(request)
    picture = manager.inspect()
    pool = manager.page_pool
    held_by = {}
    for request in running:
        for group in range(len(specs)):
            for page in manager.page_ids(request, group):
                if page:
                    held_by.setdefault(int(page), []).append(request.request_id)
                    assert picture.groups[page] == group
    counts = picture.counts
    assert sum(counts.values()) == manager.num_pages
    assert counts[PageState.EMPTY] + counts[PageState.CACHED] == manager.num_free_pages
    assert counts[PageState.PINNED] == manager.num_pinned_pages
    for page in range(1, manager.num_pages):
        state = picture.states[page]
        if pool.ref_count(page) == 0:
            assert state == (PageState.CACHED if pool.is_cached(page) else PageState.EMPTY)
        elif state != PageState.PINNED:
            assert len(held_by[page]) == pool.ref_count(page)
            assert state == (PageState.SHARED if len(held_by[page]) > 1 else PageState.RUNNING)
    wanted = Counter(tuple(sorted(ids)) for ids in held_by.values() if len(ids) > 1)
    found = Counter({tuple(sorted(s.request_ids)): s.num_pages for s in picture.shared})
    assert found == wanted
    for shared in picture.shared:
        assert sorted(held_by[shared.first_page]) == sorted(shared.request_ids)
    assert {r.request_id: r.num_pages for r in picture.requests} == Counter(
        name for names in held_by.values() for name in names
    )
    for request in picture.requests:
        of_request = [ids for ids in held_by.values() if request.request_id in ids]
        assert request.num_shared == sum(len(ids) > 1 for ids in of_request)
    check_svg(picture)
    manager.check_invariants()


def check_svg(picture):
    """Whether the image is XML whose map and legend count what the picture counts."""
    root = ET.fromstring(picture.to_svg())
    assert root.tag == f"{SVG}svg"
    assert not list(root.iter(f"{SVG}script"))
    paths = {path.find(f"{SVG}title").text: path for path in root.iter(f"{SVG}path")}
    for state, count in picture.counts.items():
        title = f"{LOOKS[state].label}: {count:,} pages"
        assert (title in paths) == (count > 0)
        if count and picture.num_pages <= 4096:
            assert paths[title].get("d").count("M") == count
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x")) + float(rect.get("width")) <= 720
    texts = [text.text for text in root.iter(f"{SVG}text")]
    for text in root.iter(f"{SVG}text"):
        assert float(text.get("x")) + 7 * len(text.text or "") <= 720
    assert f"{picture.num_pages:,} pages" in texts
    assert all(f"{LOOKS[s].label} {n:,}" in texts for s, n in picture.counts.items() if n)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_whole_and_without_script():
    manager, _ = small()
    parser = Tags()
    parser.feed(manager.inspect()._repr_html_())
    parser.close()
    assert parser.open == []
    tags = {tag for tag, _ in parser.seen}
    assert {"div", "svg", "path", "rect", "text"} <= tags
    assert "script" not in tags
    assert not any(name.startswith("on") for _, attrs in parser.seen for name in attrs)


HOSTILE = [
    "<script>alert(1)</script>",
    "a & b < c > \"d\" 'e'",
    "]]></text><text>",
    "\x1b[31mred\x1b[0m\x00\x07",
    "[bold]markup[/bold]",
    "line\nbreak\r\ttab",
    "\u202eright to left",
    "x" * 500,
    "",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_of_requests_cannot_do_harm(name):
    manager = manager_of(12)
    requests = [start(manager, name, range(12)), start(manager, "other", range(13))]
    picture = manager.inspect()
    assert picture.requests[0].request_id == requests[0].request_id == name
    check_svg(picture)
    svg = picture.to_svg()
    assert "<script" not in svg
    text = str(picture)
    for shown_text in (svg, text):
        assert all(char.isprintable() or char == "\n" for char in shown_text)
    if len(name) <= 28:
        assert "".join(c if c.isprintable() else "\ufffd" for c in name) in text
    output = io.StringIO()
    Console(width=80, file=output).print(picture)  # what looks like markup is shown as it is
    assert [line.rstrip() for line in output.getvalue().splitlines()] == [
        line.rstrip() for line in text.splitlines()
    ]


@given(st.text())
def test_shown_names_are_printable_and_short(name):
    assert len(shown(name)) <= 28
    assert shown(name).isprintable()


def test_rich_draws_the_same_text_in_colours():
    manager, _ = small()
    picture = manager.inspect()
    output = io.StringIO()
    Console(width=80, force_terminal=True, color_system="truecolor", file=output).print(picture)
    coloured = output.getvalue()
    assert "\x1b[38;2;0;158;115m" in coloured  # the colour of shared pages
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in plain.splitlines()] == [
        line.rstrip() for line in str(picture).splitlines()
    ]


def test_the_map_in_text_has_a_character_for_each_page():
    manager, _ = small()
    assert "x===#ooP...." in str(manager.inspect())


def big(num_pages):
    """1/4 of the pages run, of which half are shared by three; 1/4 is cached."""
    manager = manager_of(num_pages)
    quarter = num_pages // 4 * 4 // 8 * 4  # tokens of an eighth of the pages
    prompt = np.arange(quarter, dtype=np.int32)
    for name in ("one", "two", "three"):
        request = start(manager, name, prompt)
        assert request is not None
        yield request
    alone = start(manager, "alone", prompt + 2**24)
    gone = start(manager, "gone", np.arange(2 * quarter, dtype=np.int32) + 2**25)
    assert alone is not None
    manager.free(gone)
    yield alone
    yield manager


def test_a_pool_of_a_million_pages_is_drawn_fast_and_small():
    *requests, manager = big(1_000_000)
    assert len(requests) == 4
    begin = time.perf_counter()
    picture = manager.inspect()
    svg = picture.to_svg()
    text = str(picture)
    seconds = time.perf_counter() - begin
    assert seconds < 5  # 0.3 s on a quiet machine
    assert len(svg) < 200_000
    assert len(text) < 10_000
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 60
    check_svg(picture)
    (shared,) = [s for s in picture.shared if len(s.request_ids) == 3]
    assert shared.num_pages == picture.counts[PageState.SHARED] == 124_999
    assert sum(picture.counts.values()) == 1_000_000


def test_the_worst_map_is_bounded():
    rng = np.random.default_rng(0)
    for num_pages in (4096, 4097, 3_000_000):
        states = rng.integers(1, 6, num_pages).astype(np.uint8)
        picture = PoolPicture(
            states=states,
            groups=np.zeros(num_pages, np.int32),
            page_sizes=(16,),
            requests=[],
            shared=[],
        )
        svg = picture.to_svg()
        ET.fromstring(svg)
        assert len(svg) < 250_000


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300), st.integers(1, 50))
def test_cells_count_every_page_once(states, max_cells):
    array = np.array(states, np.uint8)
    pages_per_cell, cells = shares_of_cells(array, max_cells)
    assert len(cells) <= max_cells
    for number, cell in enumerate(cells):
        part = states[number * pages_per_cell : (number + 1) * pages_per_cell]
        assert cell.tolist() == [part.count(state) for state in range(6)]
    assert cells.sum() == len(states)


def test_a_hybrid_pool_shows_its_groups():
    manager = manager_of(40, FULL, WINDOW)
    request = start(manager, "a", range(16))
    text = str(manager.inspect())
    assert "group  page size" in text
    assert request is not None
    assert shared_pages(manager.page_map()) == []


def test_the_documentation_shows_what_is_drawn():
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "inspect.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {}
    exec(compile(code, "inspect.md", "exec"), names)  # noqa: S102 - our own document
    picture = names["picture"]
    assert (docs / "images" / "inspect.svg").read_text().strip() == picture.to_svg()
    (shown_text,) = re.findall(r"\n\n```\n(.*?)\n```\n", text, re.DOTALL)
    assert [line.rstrip() for line in shown_text.splitlines()] == [
        line.rstrip() for line in str(picture).splitlines()
    ]
    assert names["manager"].num_pinned_pages == 150
