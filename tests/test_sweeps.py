"""The named grids: as many cells as they say, the nonsense left out with its reason, narrowed as Hydra users expect."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from published import make_all

from vlmbench.catalogue.read import read_domains, read_models
from vlmbench.cell.naming import Namer
from vlmbench.config import entry, product, schema
from vlmbench.config.checks import check_possible
from vlmbench.config.faults import AbsentError
from vlmbench.config.sweeping import Sweep
from vlmbench.config.twins import twins
from vlmbench.grid.cells import Grid, grid_of

CONTRASTIVE = ["clip", "blip2", "siglip", "medclip", "plip", "pubmedclip", "biomedclip", "medsiglip"]
IMAGES = ["chexpert", "camelyon17", "ham10000", "papila", "gf3300", "fairvlmed"]
GENERATIVE = ["llava", "llava_med", "qwen2_vl", "qwen25_vl", "lingshu", "gemma3", "medgemma", "internvl3"]
HOSTED = ["o3", "gemini"]


@pytest.fixture
def grid(monkeypatch, tmp_path):
    """Compose a multirun and check its points; nothing is launched, and no dataset is on this machine."""
    monkeypatch.setenv("VLMBENCH_DATA", str(tmp_path / "nothing"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)

    def compose(*arguments: str) -> Grid:
        grids: list[Grid] = []
        monkeypatch.setattr(sys, "argv", ["vlmbench train", "-m", *arguments])
        entry.compose("train", "", sweep=lambda sweep: grids.append(grid_of(sweep, absent=True)))
        (found,) = grids
        return found

    return compose


def names(grid: Grid) -> list[tuple[str, str, str]]:
    return [(cell.config.model.name, cell.config.finetune.name, cell.config.domain.name) for cell in grid.cells]


def test_the_studys_diagnosis_grid_is_144_cells_of_one_recipe_without_any_data_here(grid):
    found = grid("sweep=study_diagnosis")
    assert len(found.cells) == 8 * 6 * 3 == 144
    assert found.impossible == []
    assert set(names(found)) == {
        (model, method, domain)
        for model in CONTRASTIVE
        for method in ("zero_shot", "linear_probe", "lora")
        for domain in IMAGES
    }
    assert all(cell.absent.startswith("domain.root=") for cell in found.cells)
    configs = [cell.config for cell in found.cells]
    assert {(c.task.name, c.domain.split, c.domain.shown_name() == f"{c.domain.name}.study") for c in configs} == {
        ("diagnosis", "study", True)
    }
    # The same treatment of all: nothing but the model and the domain differs between cells of a method.
    for method in ("zero_shot", "linear_probe", "lora"):
        assert len({repr((c.finetune, c.trainer, c.task)) for c in configs if c.finetune.name == method}) == 1


def test_the_studys_vqa_grid_is_72_cells_and_hosted_models_without_a_key_stop_nothing(grid):
    found = grid("sweep=study_vqa")
    assert len(found.cells) == 8 * 4 * 2 + 2 * 4 == 72
    assert len(found.impossible) == 2 * 4
    assert all("does not apply to" in left.reason and "hosted" in left.reason for left in found.impossible)
    assert {model for model, method, _ in names(found) if method == "lora"} == set(GENERATIVE)
    assert {model for model, method, _ in names(found) if method == "zero_shot"} == {*GENERATIVE, *HOSTED}


def test_a_hosted_model_without_a_key_is_planned_and_says_what_it_lacks(grid):
    found = grid("model=o3,tiny_llava", "finetune=zero_shot")
    assert [cell.config.model.name for cell in found.cells] == ["o3", "tiny_llava"]
    assert "OPENAI_API_KEY" in found.cells[0].absent
    assert found.cells[1].absent == ""


def test_a_launch_without_a_key_or_data_runs_the_rest_and_says_so(command, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    small = ["domain.patients=20", "domain.questions_per_image=1", "task.resamples=100", f"output={tmp_path}"]
    status, out, err = command("train", "-m", "model=o3,tiny_llava", "finetune=zero_shot", *small)
    assert status == 1
    assert "left out, 1 of 2 cells: o3: the environment variable OPENAI_API_KEY" in err
    assert "1 of 2 cells done, 1 not:" in out
    status, _, err = command("train", "-m", "domain=chexpert", f"domain.root={tmp_path}/no", "finetune=zero_shot")
    assert status == 2
    assert "left out, 1 of 1 cells: domain.root=" in err


def test_data_that_are_not_here_cost_no_import_of_what_reads_them(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vlmbench.cell.domain", None)
    domain = read_domains()["papila"]
    with pytest.raises(AbsentError, match="is not a folder"):
        Namer().data(cell(domain=dataclasses.replace(domain, root=str(tmp_path / "nothing"))))  # type: ignore[call-arg]


def points(monkeypatch, *arguments: str) -> list[dict[str, str]]:
    """Return the points of a product as key to value; they are not composed."""
    monkeypatch.setattr(product, "compose_all", lambda loader, master, jobs: list(jobs))
    monkeypatch.setattr(sys, "argv", ["vlmbench train", "-m", *arguments])
    taken: list[Sweep] = []
    entry.compose("train", "", sweep=taken.append)
    return [dict(word.split("=", 1) for word in job) for job in taken[0].overrides]


def test_the_full_grid_is_every_pair_and_every_public_dataset(monkeypatch):
    found = points(monkeypatch, "sweep=full")
    # 16 models x 20 domains x (off the shelf, 2 probes x 4 fractions, 4 methods x 4 fractions x 3 seeds), and 12 x 6 x
    # (off the shelf, 3 methods x 4 fractions x 3 seeds). Of these 64 are impossible: lp_text on a multi-label domain.
    assert len(found) == 16 * 20 * (1 + 2 * 4 + 4 * 4 * 3) + 12 * 6 * (1 + 3 * 4 * 3) == 20_904
    assert len({tuple(sorted(point.items())) for point in found}) == 20_904
    models = {name: model for name, model in read_models().items() if not name.startswith("tiny_")}
    paired = {name for name, model in models.items() if model.pair}
    assert {point["model"] for point in found} == paired == paired | {models[name].pair for name in paired}
    for kind, task in (("contrastive", "diagnosis"), ("generative", "vqa")):
        domains = {
            name
            for name, domain in read_domains().items()
            if isinstance(domain, schema.PublishedDomainConfig) and task in domain.tasks
        }
        assert {point["domain"] for point in found if models[point["model"]].kind == kind} == domains
    drawn = {point["finetune"] for point in found if "seed" in point}
    assert drawn == {"coop", "clip_adapter", "lora", "full", "connector"}
    assert {point["domain.fraction"] for point in found if "seed" in point} == {"0.01", "0.05", "0.25", "1"}
    assert not any("domain.fraction" in point for point in found if point["finetune"] == "zero_shot")


def test_the_full_grid_narrows_to_one_model_and_one_domain(grid):
    found = grid("sweep=full", "model=clip", "domain=chexpert")
    assert len(found.cells) == 1 + 2 * 4 + 4 * 4 * 3 == 57
    assert len({repr(cell.config) for cell in found.cells}) == 57
    # The parts of generative models become zero_shot and lora, full once more, and connector, which is impossible.
    assert len(found.impossible) == 1 + 3 * 4 * 3
    reasons = {left.reason.partition(".")[0] for left in found.impossible}
    assert reasons == {"it is in the product twice", "finetune=connector does not apply to clip, a contrastive model"}


def test_lists_on_the_command_line_narrow_a_named_grid(grid):
    assert len(grid("sweep=study_diagnosis", "model=clip").cells) == 18
    assert len(grid("sweep=study_diagnosis", "model=clip,plip", "finetune=lora", "domain=papila").cells) == 2
    assert len(grid("sweep=demo").cells) == 20


def test_off_the_shelf_neither_fraction_nor_seed_makes_another_cell(grid):
    found = grid("domain.fraction=0.1,1", "seed=1,2", "finetune=zero_shot,linear_probe,lora")
    kept = {(c.config.finetune.name, c.config.domain.fraction, c.config.seed) for c in found.cells}
    assert kept == {
        ("zero_shot", 1.0, 1),
        *(("linear_probe", fraction, 1) for fraction in (0.1, 1.0)),
        *(("lora", fraction, seed) for fraction in (0.1, 1.0) for seed in (1, 2)),
    }
    reasons = {left.reason for left in found.impossible}
    assert "the same as domain=phantom_radiograph seed=1: zero_shot trains on nothing." in reasons
    assert "the same as domain=phantom_radiograph@10% seed=1: linear_probe draws nothing." in reasons
    assert len(found.impossible) == 5


def cell(**more: Any) -> schema.CellConfig:
    return dataclasses.replace(
        schema.CellConfig(
            model=schema.ContrastiveModelConfig(name="m", source="package:tiny_clip", role="generalist"),
            task=schema.DiagnosisTaskConfig(),
            finetune=schema.ZeroShotConfig(),
            domain=schema.PhantomDomainConfig(name="p", modality="oct", modalities=["oct"]),
        ),
        **more,
    )


def test_of_twins_the_first_is_kept_and_the_one_on_the_whole_train_split_before_it():
    domain = cell().domain
    few = dataclasses.replace(domain, shots=4)
    assert twins([cell(domain=few), cell(seed=3), cell()]) == {
        0: "the same as domain=p seed=3: zero_shot trains on nothing.",
        2: "the same as domain=p seed=3: zero_shot trains on nothing.",
    }
    assert twins([cell(domain=few), cell(domain=dataclasses.replace(domain, fraction=0.5))]).keys() == {1}
    assert twins([cell(), cell(domain=dataclasses.replace(domain, corruption="noise"))]) == {}
    shows = schema.VqaTaskConfig(prompts=schema.PromptsConfig(candidates=4))  # some show training examples
    assert twins([cell(task=shows, domain=few), cell(task=shows)]) == {}
    assert twins([cell(task=shows), cell(task=shows, seed=1)]).keys() == {1}
    alone = dataclasses.replace(shows, prompts=schema.PromptsConfig(candidates=4, in_context=0))
    assert twins([cell(task=alone, domain=few), cell(task=alone)]).keys() == {0}
    trained = schema.LoraConfig(lr=1e-3, scope="vision")
    assert twins([cell(finetune=trained), cell(finetune=trained, seed=1)]) == {}
    assert twins([cell(finetune=trained), cell(finetune=trained)]) == {1: "it is in the product twice."}


@pytest.mark.parametrize("arguments", [["finetune=linear_probe"], ["finetune=lp_text"], ["finetune=zero_shot"]])
def test_what_counts_as_the_same_is_the_same(train, tmp_path, arguments):
    first = train(*arguments, "seed=0", output=tmp_path / "0")
    other = ["seed=1"] + (["domain.fraction=0.3"] if "zero_shot" in arguments[0] else [])
    second = train(*arguments, *other, output=tmp_path / "1")
    assert first.record["identity"] != second.record["identity"]
    pd.testing.assert_frame_equal(first.predictions, second.predictions)


def test_a_reduced_study_runs_end_to_end_on_miniatures(command, monkeypatch, tmp_path, tmp_path_factory):
    monkeypatch.setenv("VLMBENCH_DATA", str(make_all(IMAGES, tmp_path_factory)))
    arguments = ["trainer.max_epochs=1", "task.resamples=100", f"output={tmp_path}", "hydra.launcher.jobs=2"]
    status, out, err = command("train", "-m", "sweep=study_diagnosis", "model=tiny_clip,tiny_medclip", *arguments)
    assert status == 0, err
    assert "36 of 36 cells done." in out
    assert len(list(Path(tmp_path).rglob("record.json"))) == 36


def test_every_cell_of_the_full_grid_is_possible_where_parts_change(grid):
    found = grid(
        "sweep=full", "model=medsiglip,lingshu", "domain=chestmnist,omnimedvqa", "domain.fraction=0.01", "seed=2"
    )
    for planned in found.cells:
        check_possible(planned.config)
    made = {name[:2] for name in names(found)}
    assert made == {
        *(("medsiglip", method) for method in ("zero_shot", "linear_probe", "coop", "clip_adapter", "lora", "full")),
        *(("lingshu", method) for method in ("zero_shot", "connector", "lora", "full")),
    }
