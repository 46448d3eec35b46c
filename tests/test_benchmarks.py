"""The benchmarks' page: rows of all scripts in one table, with what failed and what was not measured."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "bench"))

import benchmarks as collector
import measure

WORKS = """
import sys
sys.path.insert(0, {bench!r})
from measure import Row, arguments_of, finish, in_turn
asked = arguments_of("fake").parse_args()
row = Row(1, "ours", "theirs", "2 cores", "sums", bar="2x")
timed = in_turn(lambda: 3, lambda: 3, asked.repetitions, lambda a, b: None)
finish([timed.into(row), Row(1, "ours", "a | b", "GPU", "", note="not measured: no GPU here")], asked.json)
"""
FAILS = "raise SystemExit('the loss curves differ: 1.0 and 2.0')"


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    (tmp_path / "works.py").write_text(WORKS.format(bench=str(Path(collector.__file__).parent)))
    (tmp_path / "fails.py").write_text(FAILS)
    monkeypatch.setattr(collector, "HERE", tmp_path)
    monkeypatch.setattr(collector, "SCRIPTS", {1: "works.py", 2: "fails.py"})


def test_the_page_has_every_row_and_what_failed_leaves_the_others(scripts, monkeypatch, tmp_path):
    out = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["benchmarks.py", "--repetitions", "2", "--out", str(out), "--rows", "2", "1"])
    assert collector.main() == 1
    text = out.read_text()
    assert text.index("## Row 1") < text.index("## Row 2")
    assert "| 2 | `fails.py` | | | | failed | |" in text
    assert "Failed: the loss curves differ: 1.0 and 2.0" in text
    assert "| 1 | ours | a \\| b | GPU |  | not measured |  |" in text
    assert "not measured: no GPU here" in text
    (measured,) = [line for line in text.splitlines() if line.startswith("| 1 | ours | theirs |")]
    assert "| sums |" in measured
    assert measured.endswith("| 2x |")


def test_results_that_differ_are_not_timed():
    def check(ours: int, theirs: int) -> None:
        if ours != theirs:
            raise SystemExit(f"{ours} is not {theirs}")

    with pytest.raises(SystemExit, match="1 is not 2"):
        measure.in_turn(lambda: 1, lambda: 2, 3, check)


def test_the_ratio_is_the_median_of_pairs(tmp_path):
    row = measure.Timed([1.0, 2.0, 1.0], [3.0, 4.0, 9.0]).into(measure.Row(1, "a", "b", "c", "d"))
    measure.finish([row], tmp_path / "rows.json")
    (read,) = json.loads((tmp_path / "rows.json").read_text())
    assert (read["ratio"], read["spread"]) == (3.0, [2.0, 9.0])
    assert read["figures"] == {"ours_s": 1.0, "baseline_s": 4.0}


def test_what_was_not_measured_is_said_once_and_a_slope_is_no_ratio(tmp_path, capsys):
    missing = measure.Row(8, "ours", "theirs", "GPU", "", note="not measured: no GPU here")
    slope = measure.Row(9, "planning", "a slope of 1", "cells", "4", ratio=1.0, spread=(0.9, 1.1), kind="slope")
    measure.finish([missing, slope], tmp_path / "rows.json")
    said = capsys.readouterr().out
    assert said.count("not measured") == 1
    assert "1.00 slope (0.90 to 1.10)" in said
    shown = [collector.ratio(row) for row in json.loads((tmp_path / "rows.json").read_text())]
    assert shown == ["not measured", "1.00 slope (0.90 to 1.10)"]
