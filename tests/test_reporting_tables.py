"""The CSV parses back to the same numbers, LaTeX is escaped and marks what it says, colours stay readable."""

import csv
import re
import shutil
import subprocess

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_records import demo_records, make_record, write_record

from vlmbench.reporting.colour import colour, contrast, text_colour
from vlmbench.reporting.grids import cell_matrices, colour_range
from vlmbench.reporting.heatmap import draw, heatmap_png
from vlmbench.reporting.html import write_report
from vlmbench.reporting.load import ReportError, row_from_record
from vlmbench.reporting.tables import COLUMNS, csv_rows, latex_escape, latex_table
from vlmbench.reporting.text import bytes_text, name_text, percent_text, seconds_text, signed_text, value_text


def latex_of(*records, task="diagnosis"):
    return latex_table(cell_matrices([row_from_record(record) for record in records]), task)


def test_the_csv_holds_every_record_and_metric_in_full_precision(tmp_path):
    records = [*demo_records(), make_record('x,"y"\nz', seed=9), make_record(seed=8, failed="boom")]
    for record in records:
        write_record(tmp_path / "in", record)
    with write_report(tmp_path / "in", tmp_path / "out").csv.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == COLUMNS
    assert len(read) == sum(max(1, len(record["metrics"])) for record in records)
    by_key = {(row["identity"], row["metric"]): row for row in read}
    for record in records:
        for name, metric in record["metrics"].items():
            row = by_key[(record["identity"], name)]
            for end in ("value", "low", "high"):
                assert row[end] == "" if metric[end] is None else float(row[end]) == metric[end]
            assert float(row["seconds_total"]) == record["cost"]["seconds"]["total"]
            assert row["peak_memory_device_bytes"] == ""
    assert sum(row["error_message"] == "boom" for row in read) == 1


def test_the_csv_tells_which_record_a_newer_one_replaced(tmp_path):
    for day, value in ((1, 0.7), (2, 0.8)):
        write_record(tmp_path / "in", make_record(value=value, finished=f"2025-01-0{day}T00:00:00+00:00"))
    with write_report(tmp_path / "in", tmp_path / "out").csv.open(encoding="utf-8", newline="") as file:
        read = [row for row in csv.DictReader(file) if row["metric"] == "auroc"]
    assert {(row["value"], row["replaced"]) for row in read} == {("0.7", "True"), ("0.8", "False")}


def test_a_failed_record_gives_a_row_with_its_reason():
    (row,) = csv_rows([row_from_record(make_record(failed="boom"))])
    assert row["metric"] == ""
    assert "boom" in row["reason"]


def test_latex_bolds_the_best_and_daggers_id():
    table = latex_of(make_record("tiny_clip", value=0.7), make_record("tiny_medclip", value=0.8))
    assert re.search(r"tiny\\_clip & lora \$\\cdot\$ vision & \$0\.700\$ \\\\\n &  & \{\\scriptsize \[", table)
    assert re.search(
        r"tiny\\_medclip & lora \$\\cdot\$ vision & \$\\mathbf\{0\.800\}\^\{\\dagger\}\$ \\\\\n &  & \{", table
    )
    for word in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert word in table


def test_latex_shows_failures_and_gaps_and_says_where_a_task_is_absent():
    table = latex_of(make_record(failed="boom"), make_record("tiny_medclip", "phantom_fundus"))
    assert "& failed" in table
    assert "& --" in table
    assert latex_of(make_record(), task="vqa").startswith("% no cell of task vqa")


def test_latex_special_characters_are_escaped():
    special = "a_b%c$d#e&f{g}h~i^j\\k<l>[m]"
    escaped = latex_escape(special)
    assert re.findall(r"(?<!\\)[_%$#&~^]", escaped) == []
    assert latex_escape("\x00\n\ud800") == "   "
    assert latex_escape('"n"') == "''n''"
    body = latex_of(make_record(special)).split(r"\midrule")[1]
    assert escaped in body
    assert len(re.findall(r"(?<!\\)&", body)) == 4  # a row of the value, one of the interval


def test_latex_with_every_special_character_compiles(tmp_path):
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        pytest.skip("pdflatex is not installed")
    records = [make_record('a_b%c$d#e&f{g}h~i^j\\k<l>[m]|"n"', domain=f"a_domain_of_number_{n}") for n in range(6)]
    records.append(make_record(domain="[first]", seed=1, failed="boom"))
    source = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}" + latex_of(*records)
    (tmp_path / "table.tex").write_text(source + r"\end{document}", encoding="utf-8")
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout


def test_text_is_readable_on_every_colour_and_the_scale_is_monotonic_in_lightness():
    painted = [colour(step / 200, (0.0, 1.0)) for step in range(201)]
    assert min(contrast(text_colour(c), c) for c in painted) >= 4.5
    lightness = [contrast("#000000", c) for c in painted]
    assert lightness == sorted(lightness)
    assert colour(-1, (0, 1)) == painted[0]
    assert colour(2, (0, 1)) == painted[-1]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([], (0.0, 1.0)),
        ([0.51, 0.93], (0.5, 0.95)),
        ([0.90, 0.91], (0.8, 1.0)),
        ([0.99, 1.0], (0.8, 1.0)),
        ([0.01], (0.0, 0.2)),
    ],
)
def test_the_colour_scale_spans_the_values_but_never_paints_noise(values, scale):
    low, high = colour_range(values)
    assert high - low >= 0.2 - 1e-9
    assert all(low <= value <= high for value in values)
    assert 0 <= low < high <= 1
    if values != [0.90, 0.91]:
        assert (low, high) == pytest.approx(scale)


def test_numbers_as_text():
    assert [value_text(v) for v in (0.5, 1.0, 0.0, 0.99996, 0.0001, None)] == [
        "0.500",
        "1.000",
        "0.000",
        "0.99996",
        "0.0001",
        "n/a",
    ]
    assert signed_text(-0.1) == "−0.100"
    assert [bytes_text(v) for v in (None, 0, 1500, 2.5e9)] == ["n/a", "0 B", "1.50 kB", "2.50 GB"]
    assert [seconds_text(v) for v in (None, 3.21, 600, 9000)] == ["n/a", "3.2 s", "10.0 min", "2.5 h"]


def test_metrics_are_named_as_papers_print_them():
    names = ("auroc", "average_precision", "open_token_f1", "open_bleu1", "open_rouge_l", "vqa")
    printed = ["AUROC", "average precision", "open token F1", "open BLEU-1", "open ROUGE-L", "VQA"]
    assert [name_text(name) for name in names] == printed


def test_a_small_share_is_not_shown_as_none():
    assert [percent_text(v) for v in (0, 0.00001, 0.0213)] == ["0.00 %", "< 0.01 %", "2.13 %"]


def test_no_name_reaches_into_the_tiles_of_the_picture():
    rows = [row_from_record(make_record("m" * 60, "d" * 40)), row_from_record(make_record("x", "y", seed=1))]
    matrices = cell_matrices(rows)
    figure = draw(matrices, dpi=80)
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    assert boxes["m" * 60].x1 <= axes.get_window_extent(renderer).x0
    assert boxes["m" * 60].x0 >= 0
    assert boxes["d" * 40].x1 <= boxes["y"].x0


def test_the_picture_is_a_png_and_needs_a_cell(tmp_path):
    rows = [row_from_record(record) for record in (make_record("$a$_b"), make_record(failed="boom", seed=1))]
    path = heatmap_png(rows, tmp_path / "new" / "heat.png", dpi=40)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ReportError, match="no cell"):
        heatmap_png([], tmp_path / "none.png")
