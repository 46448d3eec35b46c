"""The page: complete, honest about gaps, self-contained, escaped, and unbroken by corrupt records."""

import copy
import itertools
import re
from html.parser import HTMLParser

import pytest
from synthetic_records import MODALITIES, demo_records, make_record, write_record

from vlmbench.reporting.html import write_report
from vlmbench.reporting.load import ReportError

VOID = {"meta", "link", "br", "wbr", "input"}


class Page(HTMLParser):
    """Tags, attributes and balance of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.attributes, self.open, self.ids, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *attr) for attr in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *attr) for attr in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page_of(tmp_path, records, **options):
    for record in records:
        write_record(tmp_path / "in", record)
    return write_report(tmp_path / "in", tmp_path / "out", **options).html.read_text(encoding="utf-8")


def section(page, name):
    (found,) = re.findall(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    return found


def tiles(page, name="heat"):
    return re.findall(
        r"<td(?: data-cells=.*?)?(?: class=.*?)?(?: style=.*?)?>.*?</td>",
        section(page, name).replace("<thead><tr><td></td>", ""),
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("demo"), demo_records(), title="Demo")


def test_the_heat_map_carries_every_value_interval_and_mark(tmp_path):
    records = [
        make_record(model, domain, finetune=finetune)
        for model, domain, finetune in itertools.product(
            ("tiny_clip", "tiny_medclip"), MODALITIES, ("zero_shot", "lora")
        )
    ]
    records[0]["exposure"] = "unknown"
    found = tiles(page_of(tmp_path, records))
    assert len(found) == len(records)
    for record in records:
        metric = record["metrics"]["auroc"]
        text = f"<b>{metric['value']:.3f}</b>", f"[{metric['low']:.3f}, {metric['high']:.3f}]"
        tile = next(tile for tile in found if all(part in tile for part in text))
        assert {"id": "ID†", "ood": "OOD", "unknown": "unk."}[record["exposure"]] in tile


def test_missing_failed_and_undefined_cells_are_shown_as_such(tmp_path):
    records = [
        make_record("tiny_clip", "phantom_fundus"),
        make_record("tiny_clip", "phantom_radiograph", failed="loss is not finite\nsecond line"),
        make_record("tiny_medclip", "phantom_fundus"),
    ]
    records[2]["metrics"]["auroc"] |= {"value": None, "low": None, "high": None}
    page = page_of(tmp_path, records)
    found = tiles(page)
    assert sum("not run" in tile for tile in found) == 1
    (failed,) = [tile for tile in found if 'class="failed"' in tile]
    assert "RuntimeError: loss is not finite" in failed
    assert "second line" not in page
    (undefined,) = [tile for tile in found if 'class="undefined"' in tile]
    assert "n/a" in undefined
    assert "0.000" not in page
    assert "error.traceback" in section(page, "failed")


def test_a_missing_interval_is_told_with_the_reason_of_the_record(tmp_path):
    record = make_record()
    record["metrics"]["auroc"] |= {"low": None, "high": None, "reason": "one group <alone>"}
    page = page_of(tmp_path, [record])
    (tile,) = tiles(page)
    assert "no interval</span>" in tile
    assert "no interval: one group &lt;alone&gt;" in tile
    assert "no interval: one group &lt;alone&gt;" in section(page, "domains")


def test_seeds_are_a_mean_with_its_range_and_number(tmp_path):
    records = [make_record(seed=seed, value=value) for seed, value in enumerate((0.70, 0.80, 0.84))]
    records.append(make_record(seed=3, failed="boom"))
    (tile,) = tiles(page_of(tmp_path, records))
    assert "<b>0.780</b>" in tile
    assert "0.700 to 0.840, n=3, 1 failed" in tile


def test_different_recipes_are_two_lines_and_no_pair(tmp_path):
    left, right = make_record("tiny_clip"), make_record("tiny_medclip")
    right["config"]["finetune"]["rank"] = 64
    page = page_of(tmp_path, [left, right])
    assert "finetune.rank: 8 against 64" in section(page, "answers")
    assert '<section id="gaps"' not in page


def test_a_number_is_never_rounded_up_to_certainty(tmp_path):
    (tile,) = tiles(page_of(tmp_path, [make_record(value=0.99987)]))
    assert "<b>0.9999</b>" in tile


def test_transfer_names_where_it_was_trained_and_outlines_home(demo):
    transfer = section(demo, "transfer")
    assert "trained on phantom_<wbr>fundus" in transfer
    assert transfer.count('class="home"') == 2


def test_a_model_tuned_on_a_part_of_train_is_at_home_on_the_whole_test_split(tmp_path):
    parts = ("phantom_oct@5%", "phantom_oct@16shots-s1", "phantom_oct")
    records = [make_record(domain=name) for name in parts]
    records += [make_record(domain="phantom_oct~noise3", trained_on=name) for name in parts]
    transfer = section(page_of(tmp_path, records), "transfer")
    assert transfer.count('class="home"') == 3
    assert "not run" not in transfer


def test_majority_baseline_cost_and_warnings_are_on_the_page(demo):
    assert "majority baseline (closed)" in section(demo, "domains")
    assert "splits overlap, train-test: 3 near-duplicate images" in section(demo, "run")
    assert "1 image left out (1 example): truncated" in section(demo, "run")
    assert "Metric against cost is not drawn" in section(demo, "cost")  # these records have no predictions
    assert "undefined on this test set" in section(demo, "domains")


def test_a_warning_of_any_record_is_shown_and_a_missing_audit_is_said(tmp_path):
    records = [make_record(), make_record(finetune="full"), make_record(domain="phantom_fundus")]
    records[1]["data"]["audit"]["train-test"]["groups"] = 2
    records[1]["bootstrap"]["n_groups"] = 9
    records[1]["environment"]["git"] = {"commit": "other", "dirty": True}
    records[2]["data"]["audit"] = {}
    page = page_of(tmp_path, records)
    run = section(page, "run")
    assert "splits overlap, train-test: 2 groups in both" in run
    assert "the interval rests on 9 groups" in run
    assert "2 git commits" in run
    assert "1 record made with uncommitted changes" in run
    assert "overlap not audited" in section(page, "data")


def test_what_the_audit_did_not_compare_is_said_beside_what_it_found(tmp_path):
    record = make_record()
    record["data"]["audit"]["skipped"] = "pixels and near-duplicates were not compared: hashes=False"
    record["data"]["audit"]["train-test"]["groups"] = 2
    data = section(page_of(tmp_path, [record]), "data")
    assert "2 groups in both" in data
    assert "pixels and near-duplicates not compared" in data


def test_labels_left_out_of_a_macro_mean_and_intervals_without_width_are_warned_of(tmp_path):
    records = [make_record(counts={"examples": 200, "columns_left_out": 2}), make_record(domain="phantom_fundus")]
    records[1]["metrics"]["auroc"] |= {"value": 1.0, "low": 1.0, "high": 1.0}
    run = section(page_of(tmp_path, records), "run")
    assert "phantom_radiograph (diagnosis): AUROC and average precision leave out 2 labels" in run
    assert "phantom_fundus (diagnosis): AUROC" not in run
    assert "1 interval of the primary metric without width" in run


def test_the_fewest_groups_of_a_domain_are_named(tmp_path):
    records = [make_record(seed=seed) for seed in (0, 1)]
    for record, groups in zip(records, (9, 20), strict=True):
        record["bootstrap"]["n_groups"] = groups
    assert "the interval rests on 9 groups" in section(page_of(tmp_path, records), "run")


def test_a_page_with_too_many_numbers_says_where_the_rest_is(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmbench.reporting.by_domain.MAX_VALUES", 3)
    domains = section(page_of(tmp_path, [make_record()]), "domains")
    assert "3 further metrics are in cells.csv" in domains
    assert "F1" not in domains


def test_the_page_loads_nothing_and_is_well_formed(demo):
    page = Page(demo)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    loads = [a for a in page.attributes if a[1] in {"src", "srcset", "href", "action", "data", "poster", "xlink:href"}]
    for tag, _, target in loads:
        assert target.startswith(("#", "data:")) or (tag == "a" and target.startswith("https://arxiv.org/")), target
    anchors = {target[1:] for _, name, target in loads if name == "href" and target.startswith("#")}
    assert anchors <= set(page.ids)
    assert not re.search(r"url\(|@import|<script[^>]*src|<iframe|<img|fetch\(|XMLHttp|WebSocket", demo)
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:;" in demo


def test_every_string_of_a_record_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\"'&"

    def poison(value):
        if isinstance(value, dict):
            return {evil + key if key in ("torch", "near_duplicates") else key: poison(v) for key, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        keep = ("done", "failed", "cell", "transfer", "diagnosis", "id", "ood", "generalist", "specialist", "auroc")
        return evil + value if isinstance(value, str) and value not in keep else value

    records = [poison(record) for record in demo_records()[:12]]
    records.append(poison(make_record(failed="boom")))
    page = page_of(tmp_path, records, title=evil)
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert Page(page).open == []


def test_corrupt_fields_never_break_the_page(tmp_path):
    def paths(value, at=()):
        yield at
        for key in value if isinstance(value, dict) else ():
            yield from paths(value[key], (*at, key))

    base = make_record()
    junk: tuple[object, ...] = (None, [], {}, "x", -1, 1e300, "\ud800\x00")
    places = [at for at in paths(base) if at]
    for seed, (at, wrong) in enumerate(itertools.product(places, junk)):
        record = copy.deepcopy(base)
        record["cell"]["seed"] = seed
        parent = record
        for key in at[:-1]:
            parent = parent[key]
        parent[at[-1]] = wrong
        write_record(tmp_path / "in", record, str(seed))
    paths_out = write_report(tmp_path / "in", tmp_path / "out")
    page = paths_out.html.read_text(encoding="utf-8")
    assert Page(page).open == []
    assert "nan" not in "".join(re.findall(r"<b>(.*?)</b>", page))


def test_an_unreadable_file_is_listed_beside_the_rest(tmp_path):
    (tmp_path / "in" / "broken").mkdir(parents=True)
    (tmp_path / "in" / "broken" / "record.json").write_text("{")
    page = page_of(tmp_path, [make_record()])
    assert "broken/record.json" in section(page, "failed")
    assert "Expecting property name" in section(page, "failed")


def test_only_unreadable_files_still_give_a_page(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "record.json").write_text("[]")
    page = page_of(tmp_path, [])
    assert "holds a JSON list" in page
    assert "No cell among the records" in page


def test_an_empty_directory_is_an_error_and_writes_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ReportError, match="run a cell or a grid first"):
        write_report(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_named(tmp_path):
    write_record(tmp_path / "in", make_record())
    (tmp_path / "out").write_text("kept")
    with pytest.raises(ReportError, match="out cannot be written: File exists; name another output folder"):
        write_report(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "kept"


def test_the_same_records_give_the_same_bytes(tmp_path):
    page = page_of(tmp_path, demo_records())
    assert write_report(tmp_path / "in", tmp_path / "again").html.read_text(encoding="utf-8") == page


def test_two_thousand_records_stay_within_five_megabytes(tmp_path):
    models = ("tiny_clip", "tiny_medclip", "other_clip", "other_med")
    finetunes = ("zero_shot", "linear_probe", "lora", "full", "coop")
    combinations = itertools.product(models, [*MODALITIES, "oct"], finetunes, range(20))
    records = [make_record(m, d, finetune=f, seed=s) for m, d, f, s in combinations]
    assert len(records) == 2000
    page = page_of(tmp_path, records)
    assert len(page.encode()) < 5_000_000
    assert len(tiles(page)) == 100
