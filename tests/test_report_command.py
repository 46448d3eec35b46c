"""From the real command's records to the page."""

import csv
import json


def test_records_of_both_families_become_one_page(train, command, tmp_path):
    train("finetune=zero_shot")
    train("finetune=linear_probe")
    train("model=tiny_llava", "finetune=zero_shot")
    train("finetune=zero_shot", "domain=folder", "domain.root=/nowhere")  # a mistake leaves no record
    status, out, err = command("report", f"records={tmp_path / 'runs'}", f"output={tmp_path / 'page'}", "title=Ours")
    assert status == 0, err
    page = tmp_path / "page" / "report.html"
    assert out.strip() == f"report: {page}"
    html = page.read_text()
    assert "<title>Ours" in html
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("record.json")]
    assert len(found) == 3
    with (tmp_path / "page" / "cells.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    for record in found:
        value = record["metrics"][record["primary_metric"]]["value"]
        assert any(float(row["value"]) == value for row in rows if row["metric"] == record["primary_metric"])
    for name in ("table_diagnosis.tex", "table_vqa.tex"):
        assert r"\toprule" in (tmp_path / "page" / name).read_text()


def test_a_directory_without_records_says_what_to_run_first(command, tmp_path):
    status, _, err = command("report", f"records={tmp_path}", f"output={tmp_path / 'page'}")
    assert status == 2
    assert str(tmp_path) in err
    assert not (tmp_path / "page").exists()
