"""Several processes in one cell, by gloo: the results of one process, every example once, no waiting for the dead."""

import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import SequentialSampler

from vlmbench.cell.ranks import Rank, RankError, environments, this_rank
from vlmbench.cell.together import run_ranks
from vlmbench.cell.told import run_one
from vlmbench.cell.zero import Zero
from vlmbench.domains.shares import Share, SharedBatches, WholeBatches
from vlmbench.records.store import read_predictions, read_record

TOLERANCE = 1e-4
BASE = ["trainer.accelerator=cpu", "trainer.max_epochs=2", "task.resamples=100", "trainer.num_workers=0"]
DIAGNOSIS = ["domain.patients=23", "domain.fraction=0.9", "trainer.eval_batch_size=7"]
ONE_LEFT, THREE_LEFT = [*DIAGNOSIS, "trainer.batch_size=2"], [*DIAGNOSIS, "trainer.batch_size=8"]  # of 27 rows
# Four batches make two optimiser steps, the second of one batch; a validation split of one batch, for rank 0 alone.
ACCUMULATED = ["trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.05", "trainer.eval_batch_size=64"]
TEXT = ["finetune=full", "finetune.classifier=text"]
CAPTIONS = ["task=pretrain", *DIAGNOSIS, "domain.fraction=0.83", "trainer.batch_size=22"]  # 25 rows, three left
VQA = ["model=tiny_llava", "finetune=lora", "finetune.dropout=0", "finetune.scope=ML", "domain.patients=20"]
CELLS = {
    "a linear head, and one row left for two": [*ONE_LEFT, "finetune=lora", "finetune.dropout=0"],
    "several labels, and three rows left for two": [*THREE_LEFT, *TEXT, "domain.target=multilabel", *ACCUMULATED],
    "captions, each other's negatives": [*CAPTIONS, "finetune=full", "finetune.scope=vision+text"],
    "a probe": [*DIAGNOSIS, "finetune=linear_probe", "finetune.strengths=[0.01,1]"],
    "answers, in parts that differ between two": [
        *(*VQA, "task.monitor=val/accuracy", "trainer.batch_size=8", "trainer.eval_batch_size=9"),
        "trainer.micro_tokens=200",
    ],
}


def assert_same(alone, together):
    first, second = alone.record, together.record
    assert first["status"] == second["status"] == "done", second["error"]
    assert first["identity"] == second["identity"]
    for one, two in zip(first["training"].get("curve", []), second["training"].get("curve", []), strict=True):
        assert one == pytest.approx(two, abs=TOLERANCE)
    values = [{name: row["value"] for name, row in record["metrics"].items()} for record in (first, second)]
    assert values[0] == pytest.approx(values[1], abs=TOLERANCE)
    one, two = alone.predictions, together.predictions
    assert list(one["example_id"]) == list(two["example_id"])
    numbers = [name for name in one if one[name].dtype.kind == "f"]
    np.testing.assert_allclose(one[numbers], two[numbers], atol=TOLERANCE)
    assert one.columns.equals(two.columns)
    if "prediction" in one:
        assert list(one["prediction"]) == list(two["prediction"])
    cost = second["cost"]
    assert (first["cost"]["devices"], cost["devices"]) == (1, 2)
    assert cost["device_seconds"] == pytest.approx(2 * cost["seconds"]["total"], abs=0.01)


@pytest.mark.parametrize("name", CELLS)
def test_two_processes_give_the_results_of_one(train, tmp_path, name):
    alone = train(*BASE, *CELLS[name], small=False)
    together = train(*BASE, *CELLS[name], "trainer=ddp", small=False, output=tmp_path / "ddp")
    assert together.status == 0
    assert_same(alone, together)
    if "left" in name:
        assert alone.record["data"]["splits"]["train"]["examples"] == 27


def test_a_split_model_gives_the_results_of_a_whole_one(train, tmp_path):
    cell = [*BASE, *VQA, "trainer.batch_size=8", "trainer.eval_batch_size=9"]
    alone = train(*cell, small=False)
    together = train(*cell, "trainer=fsdp", "trainer.precision=32-true", small=False, output=tmp_path / "fsdp")
    assert_same(alone, together)


def faulty(config):
    """Run a rank in whose second training step, in rank 1 alone, something breaks."""
    from vlmbench.modules.micro import MicroBatches

    real, steps = MicroBatches.step, []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == 2 and os.environ["RANK"] == "1":
            raise ValueError("planted")
        return real(self, *arguments)

    MicroBatches.step = step  # type: ignore[method-assign]
    return run_one(config)


def composed(monkeypatch, *words):
    from vlmbench.config.entry import compose

    monkeypatch.setattr(sys, "argv", ["train", *words])
    return compose("train", "").configs[0]


def test_a_fault_in_one_rank_is_the_cells_fault_at_once(monkeypatch, tmp_path):
    words = [*BASE, *ONE_LEFT, "finetune=lora", "trainer=ddp", f"output={tmp_path}"]
    start = time.monotonic()
    assert run_ranks(composed(monkeypatch, *words), faulty) == 1
    assert time.monotonic() - start < 180  # gloo itself would give up after the hour that a rank may take
    (path,) = tmp_path.rglob("record.json")
    record = read_record(path.parent)
    assert record["status"] == "failed"
    assert record["error"]["type"] == "ValueError"
    assert record["error"]["message"] == "rank 1 of 2: planted"
    assert "micro" in record["error"]["traceback"]


def in_a_job(config):
    """Run a rank inside a job of SLURM that has other tasks than the cell."""
    os.environ |= {"SLURM_NTASKS": "5", "SLURM_JOB_ID": "1", "SLURM_NTASKS_PER_NODE": "5"}
    return run_one(config)


def test_rank_0_decides_for_all_that_a_cell_is_done_and_one_process_evaluates_it(monkeypatch, train, command, tmp_path):
    words = [*BASE, *DIAGNOSIS, "finetune=zero_shot", "trainer=ddp"]
    config = composed(monkeypatch, *words, f"output={tmp_path}")
    assert run_ranks(config, in_a_job) == 0
    (path,) = tmp_path.rglob("record.json")
    assert len(read_predictions(path.parent)) == read_record(path.parent)["data"]["splits"]["test"]["examples"]
    written = path.stat().st_mtime_ns
    assert run_ranks(config, in_a_job) == 0
    again = train(*words, small=False, output=tmp_path)
    assert (again.status, "done already" in again.err) == (0, True)
    assert path.stat().st_mtime_ns == written
    elsewhere = [f"cell={path.parent}", "domain=phantom_ultrasound", "domain.patients=20", "trainer.accelerator=cpu"]
    assert command("evaluate", *elsewhere)[0] == 0
    status, _, err = command("evaluate", *elsewhere, "trainer=ddp")
    assert (status, "evaluated on one device" in err, len(err.strip().splitlines())) == (2, True, 1)


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 12, 13])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_shares_hold_every_row_once_and_keep_step(rows, world):
    order = list(range(rows))
    for make in (
        lambda rank: SharedBatches(SequentialSampler(order), 4, Share(rank, world)),
        lambda rank: WholeBatches(order, 3, Share(rank, world)),
        lambda rank: WholeBatches(order[::-1], 3, Share(rank, world)),
    ):
        shares = [list(make(rank)) for rank in range(world)]
        assert sorted(row for share in shares for row in share if row >= 0) == order
        assert [len(make(rank)) for rank in range(world)] == [len(share) for share in shares]
        size = 4 // world if isinstance(make(0), SharedBatches) else 3
        cut = [[share[i : i + size] for i in range(0, len(share), size)] for share in shares]
        assert len({len(batches) for batches in cut}) == 1
        for batches in cut:
            assert all(len(batch) == 1 for batch in batches if batch[0] < 0)
        if size == 4 // world and isinstance(make(0), SharedBatches):
            for step, start in enumerate(range(0, rows, 4)):
                seen = sorted(row for batches in cut for row in batches[step] if row >= 0)
                assert seen == order[start : start + 4]


def test_a_rank_is_told_by_torchruns_variables_or_by_those_of_a_task_of_slurm():
    task = {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    assert this_rank(1, 1, task) == Rank()
    assert this_rank(2, 2, task) == Rank(3, 1, 4, slurm=True)
    assert this_rank(2, 1, {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}) is None  # a batch script is no task
    assert this_rank(2, 1, environments(2)[1]) == Rank(1, 1, 2)
    assert environments(1) == [{}]
    with pytest.raises(RankError, match=r"ntasks-per-node=2"):
        this_rank(2, 1, task)
    with pytest.raises(RankError, match=r"trainer.nodes=2"):
        this_rank(2, 2, {})
    with pytest.raises(RankError, match=r"WORLD_SIZE=2"):
        this_rank(4, 1, environments(2)[0])


def test_what_deepspeed_splits_is_saved_as_on_one_device_and_split_again(tmp_path, monkeypatch):
    """With a stand-in for DeepSpeed in which rank 1 of 2 holds the second half of each tensor."""
    module = torch.nn.Sequential(torch.nn.LayerNorm(3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
    module[1].requires_grad_(False)
    tensors = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices, vectors = [p for p in tensors if p.ndim >= 2], [p for p in tensors if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors}]
    adam = torch.optim.AdamW(groups, lr=0.01)
    for _ in range(2):
        module(torch.rand(4, 3)).square().sum().backward()
        adam.step()
    halves: dict[tuple[int, str], torch.Tensor] = {}
    for parameter in tensors:
        parameter.ds_shape = parameter.shape  # type: ignore[attr-defined]
        for key in ("value", "exp_avg", "exp_avg_sq"):
            halves[id(parameter), key] = torch.zeros((parameter.numel() + 1) // 2)
    utils: Any = ModuleType("deepspeed.utils")
    utils.safe_get_full_fp32_param = lambda parameter: parameter.detach()
    utils.safe_get_full_optimizer_state = lambda parameter, key: adam.state[parameter][key]
    utils.safe_get_local_fp32_param = lambda parameter: halves[id(parameter), "value"]
    utils.safe_get_local_optimizer_state = lambda parameter, key: halves[id(parameter), key]
    deepspeed: Any = ModuleType("deepspeed")
    deepspeed.zero = SimpleNamespace(GatheredParameters=lambda *_, **__: nullcontext())
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    monkeypatch.setitem(sys.modules, "deepspeed.utils", utils)

    class Rank1(Zero):
        global_rank, lightning_module, optimizers = 1, module, [SimpleNamespace(optimizer=adam)]  # type: ignore

        def __init__(self) -> None:
            pass

    plain, state = adam.state_dict(), Rank1().optimizer_state(Rank1.optimizers[0])
    assert state["param_groups"] == plain["param_groups"]
    assert all(torch.equal(state["state"][n][key], kept[key]) for n, kept in plain["state"].items() for key in kept)
    weights = Rank1().lightning_module_state_dict()
    assert list(weights) == [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    torch.save({"state_dict": weights, "optimizer_states": [plain]}, tmp_path / "last.ckpt")
    expected: dict[tuple[int, str], torch.Tensor] = {}
    for parameter in tensors:
        full = {"value": parameter.detach(), **{key: adam.state[parameter][key] for key in ("exp_avg", "exp_avg_sq")}}
        expected |= {
            (id(parameter), key): value.flatten()[(parameter.numel() + 1) // 2 :] for key, value in full.items()
        }
    Rank1().load_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for which, half in halves.items():
        assert torch.equal(half[: len(expected[which])], expected[which])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.devices=2"], "trainer=ddp where the model fits"),
        (["trainer=ddp", "trainer.devices=3"], "Set trainer.batch_size=33"),
        (["trainer=ddp", "trainer.accelerator=mps"], "is one device"),
        (["trainer=fsdp"], "Set trainer=ddp"),
        (["trainer=fsdp", "model=tiny_llava", "task=vqa", "trainer.precision=16-mixed"], "bf16-mixed or 32-true"),
        (["trainer=deepspeed_zero3"], r"pip install 'vlmbench\[deepspeed\]'"),
    ],
)
def test_devices_that_cannot_work_together_are_refused(words, said):
    code = (
        "import sys, vlmbench.train as t; from vlmbench.config.entry import run\n"
        "try: run(t.main)\nfinally: assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code, "finetune=lora", *words], capture_output=True, text=True)
    assert ran.returncode == 2, ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert re.search(said, ran.stderr)
