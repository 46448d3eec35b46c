"""Baselines: images in the place of others, a network that learned nothing, the majority, and what beats them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic_study import diagnosis_frame, vqa_frame, write_cell

from vlmbench.catalogue.read import read_models
from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.config.checks import METHODS, check_combination, methods_of
from vlmbench.config.domain_checks import check_corruption
from vlmbench.config.exposure import exposure
from vlmbench.config.faults import ImpossibleCellError
from vlmbench.domains.base import DomainError, Example
from vlmbench.domains.corruption import uncorrupted
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.replaced import GREY, ReplacedFiles, replaced, shuffled_keys
from vlmbench.metrics.draws import draw
from vlmbench.metrics.majority import majority_diagnosis, majority_vqa
from vlmbench.records.store import write_predictions
from vlmbench.reporting import baselines
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.study import Study


def phantom(**changes):
    return schema.PhantomDomainConfig(
        name="phantom", modality="ultrasound", modalities=["ultrasound"], patients=20, **changes
    )


def examples(sizes, split="test"):
    return [
        Example(f"{split}{group}{i}", f"{split}-{group}-{i}.png", f"{split}-{group}", split)
        for group, size in enumerate(sizes)
        for i in range(size)
    ]


# -------------------------------------------------------------------------------------------- blank and shuffled images


@pytest.mark.parametrize("sizes", [[1, 1], [3, 1, 2, 1], [5, 2, 2, 1], [1] * 40])
def test_everybody_is_shown_somebody_elses_image_of_the_same_split(sizes):
    rows = examples(sizes) + examples([2, 2, 1], "train")
    for seed in range(5):
        instead = shuffled_keys(rows, seed)
        assert sorted(instead) == sorted(instead.values()) == sorted(row.image for row in rows)
        for key, shown in instead.items():
            assert key.split("-")[0] == shown.split("-")[0]
            assert key.split("-")[1] != shown.split("-")[1]
    assert shuffled_keys(rows, 1) == shuffled_keys(rows[::-1], 1)
    if len(rows) > 12:
        assert shuffled_keys(rows, 1) != shuffled_keys(rows, 2)


def test_a_patient_with_most_of_the_images_cannot_be_shuffled():
    with pytest.raises(DomainError, match="6 of the 9 test images"):
        shuffled_keys(examples([6, 3]), 0)


def test_what_is_kept_of_images_is_of_those_that_are_shown(tmp_path):
    rows = examples([1, 1, 1, 1])
    for place, row in enumerate(rows):
        Image.new("RGB", (4 + place, 4), (place, 0, 0)).save(tmp_path / row.image)
    clean = FolderImages(tmp_path)
    blank, mixed = (replaced(clean, kind, rows) for kind in ("blank", "shuffled"))
    assert isinstance(blank, ReplacedFiles)
    assert isinstance(mixed, ReplacedFiles)
    assert uncorrupted(mixed) is clean
    keys = [row.image for row in rows]
    assert {blank.load(key).getpixel((0, 0)) for key in keys} == {GREY}
    assert len({(blank.load(key).size, blank.digest(key), blank.stamp(key)) for key in keys}) == 1
    for key in keys:
        shown = mixed.instead[key]
        assert mixed.load(key).tobytes() == clean.load(shown).tobytes() != clean.load(key).tobytes()
        assert mixed.size(key) == clean.size(shown)
        assert mixed.stamp(key).startswith(clean.stamp(shown))
        assert mixed.digest(key) not in {clean.digest(other) for other in keys}
    assert len({mixed.digest(key) for key in keys}) == 4


def test_there_is_no_more_or_less_of_it():
    blank, mixed = (
        phantom(corruption="blank", severity=5, corruption_seed=3),
        phantom(corruption="shuffled", severity=5),
    )
    assert (blank.severity, blank.corruption_seed, blank.shown_name()) == (3, 0, "phantom~blank")
    assert (mixed.severity, mixed.shown_name()) == (3, "phantom~shuffled")
    assert phantom(corruption="shuffled", corruption_seed=2).shown_name() == "phantom~shuffled-s2"
    built = [build_domain(one, "diagnosis") for one in (phantom(), blank, mixed)]
    assert len({one.fingerprint for one in built}) == 3
    assert built[2].examples == built[0].examples


def test_questions_may_be_learned_without_pictures_and_a_diagnosis_not():
    probe, lora = schema.LinearProbeConfig(), schema.LoraConfig(scope="ML")
    check_corruption(phantom(corruption="blank"), lora, "vqa")
    check_corruption(phantom(corruption="shuffled"), probe, "diagnosis")
    check_corruption(phantom(corruption="blank"), schema.ZeroShotConfig(), "diagnosis")
    for kind in ("blank", "noise"):
        with pytest.raises(ImpossibleCellError, match=f"corruption={kind}"):
            check_corruption(phantom(corruption=kind), probe, "diagnosis")


# ---------------------------------------------------------------------------------------------------- random features


def test_random_features_are_only_probed_and_have_seen_nothing():
    model = read_models()["random_features"]
    assert model.role == "baseline"
    for method in METHODS["contrastive"]:
        finetune = schema.FinetuneConfig(name=method)
        if method in methods_of(model):
            check_combination(model, schema.DiagnosisTaskConfig(), finetune, phantom())
        else:
            with pytest.raises(ImpossibleCellError, match="Valid choices: linear_probe"):
                check_combination(model, schema.DiagnosisTaskConfig(), finetune, phantom())
    assert exposure("baseline", [], "unknown", "id") == "ood"


def test_random_features_are_those_of_their_seed():
    import torch

    from vlmbench.backbones.loaders import load
    from vlmbench.weights.source import ASSETS

    image = Image.effect_noise((150, 90), 60).convert("RGB")

    def features(seed):
        backbone = load("random_features", ASSETS / "random_features", dtype=torch.float32, seed=seed)
        return backbone.encode(backbone.preprocess(image)[None]).features

    once = features(0)
    assert once.shape == (1, 512)
    assert torch.equal(once, features(0))
    assert not torch.allclose(once, features(1), atol=0.01)
    assert 0.1 < float(once.std()) < 10  # neither vanishes nor explodes


def test_a_probe_is_trained_on_them_and_sees_nothing_in_blank_images(train, command):
    ran = train("model=random_features", "domain=phantom_dermoscopy")
    assert ran.status == 0, ran.err
    assert (ran.record["role"], ran.record["exposure"], ran.record["cell"]["finetune"]) == (
        *("baseline", "ood"),
        "linear_probe",
    )
    status, _, err = command(
        *("evaluate", f"cell={ran.cells[0]}", "domain=phantom_dermoscopy", "domain.patients=24"),
        "domain.corruption=blank",
    )
    assert status == 0, err
    (folder,) = (ran.cells[0] / "transfer").iterdir()
    blind = pd.read_parquet(folder / "predictions.parquet")
    assert blind["score_1"].nunique() == 1
    assert ran.predictions["score_1"].nunique() > 10


# ------------------------------------------------------------------------------------------------------- the majority


def test_the_majority_is_as_good_as_the_most_frequent_label():
    frame = diagnosis_frame(300, 0.9, noise=1)
    share = frame["target"].mean()

    def scored(metric, **given):
        return float(draw([majority_diagnosis(frame, metric, **given)], n_resamples=100, seed=0)[0][0])

    assert scored("accuracy") == pytest.approx(max(share, 1 - share))
    assert scored("auroc") == 0.5
    assert scored("accuracy", shares=[0.3, 0.7]) == pytest.approx(share)  # what the train split says holds


def test_the_majority_of_answers_is_by_options_and_one_for_all_open_questions():
    frame = vqa_frame(300, 0.4, noise=1)
    closed = frame[frame["answer_type"] == "closed"]["answer"].value_counts()
    is_open = frame[frame["answer_type"] == "open"]["answer"].value_counts()
    majority = majority_vqa(frame, "accuracy")
    assert majority is not None
    assert majority.values is not None
    assert majority.values.sum() == closed.max() + is_open.max()
    assert majority_vqa(frame, "closed_accuracy_likelihood") is None


# --------------------------------------------------------------------------------------------------------- the section


def test_a_score_is_shown_to_need_the_picture_where_it_is_planted_and_only_there(tmp_path):
    domain = "phantom_oct"
    trained: dict[str, Any] = {"finetune": "lora", "scope": "vision"}
    config = {"finetune": {"name": "lora"}, "trainer": {}, "task": {}, "domain": {"corruption": "blank"}}
    blind: dict[str, Any] = {"domain": f"{domain}~blank", "trained_on": domain, "config": config}
    for model, auroc, without in (("tiny_clip", 0.9, 0.5), ("tiny_medclip", 0.62, 0.6)):
        for seed in range(2):
            write_cell(tmp_path, diagnosis_frame(300, auroc, noise=seed), model, domain, seed=seed, **trained)
            frame = diagnosis_frame(300, without, noise=10 + seed)
            write_cell(tmp_path, frame, model, seed=seed, **trained, **blind)
    frame = diagnosis_frame(300, 0.7, noise=30)
    write_cell(tmp_path, frame, "random_features", domain, finetune="linear_probe", scope="", role="baseline")
    rows = load_rows(tmp_path)[0]
    assert sorted({row.baseline for row in rows}) == ["", "blank", "random features"]
    (table,) = baselines.tables(Study(tmp_path, rows))
    assert table.columns == ("majority", "blank", "random features")
    said = {
        (line.rows[0].model, name): baselines.said(name, difference)
        for line in table.lines
        for name, (_, difference) in line.baselines.items()
    }
    assert said[("tiny_clip", "blank")] == "needs the picture"
    assert said[("tiny_medclip", "blank")] == "not shown to need the picture"
    assert said[("tiny_clip", "random features")] == "better than random features"
    assert said[("tiny_medclip", "random features")] != "better than random features"
    assert said[("random_features", "majority")] == "better than the majority"
    clip = next(line for line in table.lines if line.rows[0].model == "tiny_clip")
    seen, blank = (
        np.mean([row.primary.value or 0.0 for row in rows if row.model == "tiny_clip" and row.baseline == kind])
        for kind in ("", "blank")
    )
    assert clip.baselines["blank"][1].estimate == pytest.approx(seen - blank)
    assert clip.baselines["majority"][1].estimate == pytest.approx(seen - 0.5)
    made = baselines.section(Study(tmp_path, rows))
    assert made is not None
    body = str(made.body)
    assert "not shown to need the picture" in body
    assert "by construction" in body
    assert "Not run: shuffled." in body


def test_without_predictions_there_is_no_section(tmp_path):
    assert baselines.section(Study(tmp_path, [])) is None


def test_two_recipes_are_two_lines_and_no_seeds_of_one(tmp_path):
    for rank in (8, 64):
        config = {"finetune": {"name": "lora", "rank": rank}, "trainer": {}, "task": {}, "domain": {}}
        write_cell(
            tmp_path / str(rank), diagnosis_frame(60, 0.8, noise=rank), "tiny_clip", "phantom_oct", config=config
        )
    (table,) = baselines.tables(Study(tmp_path, load_rows(tmp_path)[0]))
    assert [(len(line.rows), line.variant) for line in table.lines] == [
        (1, "finetune.rank=64"),
        (1, "finetune.rank=8"),
    ]


def test_predictions_that_cannot_be_scored_are_lacking_and_leave_the_rest(tmp_path):
    for model in ("tiny_clip", "tiny_medclip"):
        path = write_cell(tmp_path, diagnosis_frame(60, 0.8, noise=0), model, "phantom_oct")
    write_predictions(path.parent, diagnosis_frame(60, 0.8, noise=0).drop(columns=["score_0", "score_1"]))
    study = Study(tmp_path, load_rows(tmp_path)[0])
    (table,) = baselines.tables(study)
    assert [line.rows[0].model for line in table.lines] == ["tiny_clip"]
    assert "predictions lack the columns" in next(iter(study.lacking.values()))
