"""The page in a browser: quiet, filtered without a server, its figures and long tables drawn, readable by all."""

import itertools
import json
import re
import shutil

import pandas as pd
import pytest
from browser import CHROMIUM, Browser
from markupsafe import Markup
from synthetic_records import MODALITIES, make_record, write_record
from synthetic_study import diagnosis_frame, vqa_frame, write_cell

from vlmbench.reporting import by_domain, closing, commands, heat, html
from vlmbench.reporting.colour import contrast
from vlmbench.reporting.frames import Frames
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.plots import figure
from vlmbench.reporting.section import Section, environment
from vlmbench.reporting.study import Study

needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
MODELS, METHODS = ("tiny_clip", "tiny_medclip"), ("zero_shot", "linear_probe", "lora", "full")


def stand_in(study):
    """Each cell against its first partner, so that a cell stands in several points; with what could break a page."""
    ids = [f"{row.identity} {study.rows[0].identity}" for row in study.rows]
    values = [row.primary.value for row in study.rows]
    names = [f"{row.model} </script><!--<script> {row.domain}" for row in study.rows]
    trace = {"type": "scatter", "mode": "markers", "x": values, "y": names, "text": names, "ids": ids}
    single = {**trace, "ids": [row.identity for row in study.rows], "error_x": {"type": "data", "array": values}}
    drawn = figure(
        [trace, single], {"height": 300}, caption="A stand-in.", described="Points.", table=Markup("<p>1</p>")
    )
    small = figure([single], {"height": 300}, caption="A small one.", described="Points.")
    beside = Markup("<p>{}</p><div class='multiples'>{}</div>").format("m" * 300, small)
    return Section("stand", "Stand-in", Markup("<div style='height:3000px'></div>") + drawn + beside)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    for seed, (model, domain, method) in itertools.product(range(2), itertools.product(MODELS, MODALITIES, METHODS)):
        write_record(root / "in", make_record(model, domain, finetune=method, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        sections = (heat.section, by_domain.section, commands.section, stand_in, closing.reading)
        patch.setattr(html, "SECTIONS", sections)
        yield html.write_report(root / "in", root / "out").html
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def browser(page):
    with Browser() as opened:
        opened.open(page)
        opened.wait("document.documentElement.dataset.interactive")
        yield opened


@pytest.fixture
def fresh(browser, page):
    browser.open(page)
    browser.wait("document.documentElement.dataset.interactive")
    return browser


def click(browser, facet, *values):
    for value in values:
        browser.run(
            f"[...document.querySelectorAll('.facet[data-key={facet}] label')]"
            f".find((label) => label.textContent === {json.dumps(value)}).querySelector('input').click()"
        )


@needs_browser
def test_filters_hide_tiles_rows_and_columns_and_live_in_the_address(fresh, page):
    visible = "[...document.querySelectorAll('#heat td[data-cells]')].filter((t) => t.checkVisibility()).length"
    heads = "[...document.querySelectorAll('#heat thead th')].filter((t) => t.checkVisibility()).length"
    assert fresh.run(visible) == 32
    click(fresh, "domain", "phantom_fundus", "phantom_ultrasound")
    click(fresh, "method", "lora · vision")
    assert fresh.run("document.querySelector('output').textContent") == "8 of 64 cells"
    assert fresh.run(visible) == 4
    assert fresh.run(heads) == 2
    address = fresh.run("location.hash")
    assert "domain=phantom_fundus" in address
    assert "method=lora" in address
    fresh.call("Page.navigate", url="about:blank")
    fresh.open(page, address)
    fresh.wait("document.documentElement.dataset.interactive")
    assert fresh.run(visible) == 4
    fresh.run("document.querySelector('[type=reset]').click()")
    fresh.wait("!location.hash.includes('domain')")
    assert fresh.run(visible) == 32
    assert fresh.run("document.querySelector('output').textContent") == "64 cells"


@needs_browser
def test_figures_are_drawn_when_they_come_into_view_and_follow_filters(fresh):
    assert fresh.run("document.querySelectorAll('.main-svg').length") == 0
    fresh.run("document.querySelector('.plot').scrollIntoView()")
    points = "document.querySelectorAll('.plot:not(.multiples *) .scatterlayer .point').length"
    fresh.wait(f"{points} === 128")
    names = fresh.run("[...document.querySelectorAll('.ytick text')].map((text) => text.textContent)")
    assert "tiny_clip </script><!--<script> phantom_fundus" in names  # to plotly, tags in a text are markup
    offers = fresh.run("[...document.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title)")
    assert offers
    assert not any("Share" in offer for offer in offers)  # the data would leave the machine
    click(fresh, "domain", "phantom_fundus")
    fresh.wait(f"{points} < 128")
    assert fresh.run(points) == 32
    before = fresh.run("getComputedStyle(document.querySelector('.xtick text')).fill")
    fresh.run("document.getElementById('theme').click()")
    fresh.wait(f"getComputedStyle(document.querySelector('.xtick text')).fill !== {json.dumps(before)}")


@needs_browser
def test_a_long_table_is_drawn_when_it_is_opened_and_commands_can_be_copied(fresh):
    rows = "document.querySelectorAll('#commands tbody tr').length"
    assert fresh.run(rows) == 0
    fresh.run("document.querySelector('#commands summary').click()")
    fresh.wait(f"{rows} === 64")
    click(fresh, "model", "tiny_clip")
    assert fresh.run(rows) == 32
    assert fresh.run("document.querySelector('#commands .more').textContent") == "32 rows."


@needs_browser
def test_all_figures_are_drawn_for_paper(fresh, tmp_path):
    fresh.wait("globalThis.Plotly")
    fresh.run("new Promise((done) => setTimeout(done, 200))")
    assert fresh.run("document.querySelectorAll('#commands tbody tr').length") == 0
    fresh.run("dispatchEvent(new Event('beforeprint'))")
    assert fresh.run("document.querySelectorAll('.plot .main-svg').length") > 0
    assert fresh.run("document.querySelectorAll('#commands tbody tr').length") == 64
    assert fresh.run("document.documentElement.dataset.theme") == "light"
    fresh.run("dispatchEvent(new Event('afterprint'))")
    fresh.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@needs_browser
def test_nothing_is_wider_than_the_page(fresh):
    fresh.run("document.querySelector('.multiples').scrollIntoView()")
    fresh.wait("document.querySelector('.multiples .main-svg')")
    assert fresh.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    width = "document.querySelector('.multiples .plot').clientWidth"
    assert fresh.run(f"document.querySelector('.multiples .canvas').clientWidth <= {width}")


@needs_browser
def test_the_page_says_nothing_to_the_console_and_asks_nobody(fresh):
    assert fresh.messages == []
    forbidden = "fetch('https://example.org').then(() => 'loaded', () => 'refused')"
    assert fresh.run(forbidden) == "refused"
    fresh.messages.clear()


def test_words_on_the_page_can_be_read_in_light_and_dark():
    css = (environment().loader.get_source(environment(), "report.css"))[0]  # type: ignore[union-attr]
    pairs = dict(re.findall(r"--([\w-]+): light-dark\((#\w+, #\w+)\)", css))
    inks = {name: value.split(", ") for name, value in pairs.items()}
    assert {"page", "ink", "soft", "link", "warn", "bad", "panel"} <= set(inks)
    on = {
        "page": ("ink", "soft", "link", "warn", "bad"),
        "panel": ("ink", "soft"),
        "warn-panel": ("ink", "warn", "link"),
    }
    on["bad-panel"] = ("bad",)
    for back, names in on.items():
        for name in names:
            for mode in (0, 1):
                assert contrast(inks[name][mode], inks[back][mode]) >= 4.5, (name, back, mode)


def test_predictions_are_what_the_files_hold_and_share_what_cells_have_in_common(tmp_path):
    made = {}
    for number in range(4):
        frame = diagnosis_frame(40, 0.8, noise=number) if number else vqa_frame(40, 0.8, noise=0)
        (tmp_path / str(number)).mkdir()
        frame.to_parquet(tmp_path / str(number) / "predictions.parquet")
        made[str(number)] = tmp_path / str(number)
    frames, tight = Frames(made), Frames(made, most=1)

    def read(some, name):
        frame = some.get(name, made[name])
        assert frame is not None
        return frame

    for name, folder in made.items():
        for some in (frames, tight):
            pd.testing.assert_frame_equal(read(some, name), pd.read_parquet(folder / "predictions.parquet"))
    whole = {name: read(frames, name).memory_usage(index=False, deep=True) for name in made}
    scores = 2 * 2 * whole["1"]["score_1"]  # of the two further cells that share all else with the first
    first = whole["1"].drop(["example_id", "group"])  # as in the other task
    assert (2 << 30) - frames._left == whole["0"].sum() + first.sum() + scores
    read(frames, "1")["score_1"] = 0.0
    assert read(frames, "1")["score_1"].sum() > 0


def test_predictions_that_are_lacking_are_warned_of(tmp_path):
    write_cell(tmp_path / "in", diagnosis_frame(40, 0.8, noise=0), "tiny_clip", "phantom_oct")
    write_record(tmp_path / "in", make_record("tiny_medclip", "phantom_oct"))
    rows, _ = load_rows(tmp_path / "in")
    study = Study(tmp_path / "in", rows)
    found = [study.predictions(row) for row in rows]
    assert sum(frame is None for frame in found) == 1
    assert "1 finished record without predictions" in html.render(study)
