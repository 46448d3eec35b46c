"""Figures and verdicts for a paper repeat byte by byte; a gallery shows what it is asked for, or why it cannot."""

import csv

import pytest
from PIL import Image
from synthetic_study import diagnosis_frame, vqa_frame, write_cell, write_study

from vlmbench.errors import UserError
from vlmbench.reporting import gallery, heat, html
from vlmbench.reporting.html import write_report
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.study import Settings, Study


def test_a_paper_gets_figures_and_verdicts_that_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "SECTIONS", (heat.section,))
    aurocs = {("tiny_clip", "phantom_fundus", "zero_shot"): 0.6, ("tiny_medclip", "phantom_fundus", "zero_shot"): 0.9}
    write_study(tmp_path / "in", aurocs, n=120)
    made = []
    for name in ("one", "two"):
        settings = Settings(resamples=200)
        write_report(tmp_path / "in", tmp_path / name, settings=settings, paper=True)
        made.append({path.name: path.read_bytes() for path in sorted((tmp_path / name / "figures").iterdir())})
    assert made[0] == made[1]
    assert {"heatmap-diagnosis-auroc.pdf", "gaps-diagnosis-rq1-auroc.svg", "pareto-diagnosis-auroc.svg"} <= set(made[0])
    assert made[0]["heatmap-diagnosis-auroc.pdf"].startswith(b"%PDF")
    assert b"tiny_medclip" in made[0]["heatmap-diagnosis-auroc.svg"]
    with (tmp_path / "one" / "verdicts.csv").open() as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file) if row["question"] == "rq1" and row["verdict"]]
    assert set(verdicts) == {"worse"}
    assert r"\toprule" in (tmp_path / "one" / "answers.tex").read_text()


@pytest.fixture
def shown(tmp_path):
    """The gallery of a pair of cells of each task."""
    for noise, model in enumerate(("tiny_clip", "tiny_medclip")):
        frame = diagnosis_frame(80, 0.8, noise=noise)
        write_cell(tmp_path, frame, model, "phantom_oct", finetune="lora", scope="vision", resamples=10)
    frame = vqa_frame(60, 0.5, noise=3)
    write_cell(
        tmp_path, frame, "tiny_llava", "phantom_fundus", task="vqa", finetune="zero_shot", scope="", resamples=10
    )

    def show(load, wanted=True):
        rows, _ = load_rows(tmp_path)
        return gallery.section(Study(tmp_path, rows, settings=Settings(gallery=wanted), load_image=load))

    return show


def test_a_gallery_shows_a_few_of_each_kind_with_words_for_each(shown):
    asked = []

    def load(row, key):
        asked.append((row.domain, key))
        return Image.new("RGB", (400, 300), "gray")

    body = shown(load).body
    n = 4 * gallery.EACH + 2 * gallery.EACH
    assert body.count("data:image/jpeg;base64,") == len(asked) == n
    assert body.count('alt="Test image of phantom_oct. Truth: class') == 4 * gallery.EACH
    assert "Only the specialist is right" in body
    assert "Licence: Apache-2.0" in body
    again, asked[:] = list(asked), []
    shown(load)
    assert asked == again


def test_no_gallery_that_nobody_asked_for_and_a_reason_where_images_are_not_here(shown):
    def absent(row, key):
        raise UserError("phantom_oct is not on this machine")

    assert shown(absent, wanted=False) is None
    body = shown(absent).body
    assert "No images: phantom_oct is not on this machine" in body
    assert "<img" not in body
