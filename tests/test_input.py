"""Batches come in time: waiting is measured, workers fit, faults come through; and a light start stays light."""

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlmbench.domains import workers
from vlmbench.domains.base import Domain, Example, ImageError
from vlmbench.domains.datamodule import DomainDataModule, stack_pixels
from vlmbench.domains.folder_images import FolderImages
from vlmbench.modules.waiting import LEAST, WARM, DataWait

CPU: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
MODULE: Any = None


def preprocess(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)


@pytest.fixture
def images(tmp_path):
    for number in range(6):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [Example(str(i), f"{i}.png", str(i), "test") for i in range(6)]
    return Domain("dots", "xray", "diagnosis", rows, FolderImages(tmp_path))


def module_of(domain: Domain, **settings) -> DomainDataModule:
    return DomainDataModule(domain, preprocess, batch_size=2, eval_batch_size=2, **settings)


@pytest.mark.parametrize("settings", [{"ahead": True}, {"num_workers": 1}, {"num_workers": 1, "ahead": True}])
def test_batches_are_the_same_however_they_are_made(images, settings: dict[str, Any]):
    plain = list(module_of(images).ordered("test", stack_pixels))
    other = list(module_of(images, **settings).ordered("test", stack_pixels))
    for one, two in zip(plain, other, strict=True):
        assert torch.equal(one["pixels"], two["pixels"])
        assert torch.equal(one["index"], two["index"])


@pytest.mark.parametrize("settings", [{}, {"ahead": True}, {"num_workers": 1}])
def test_an_image_that_cannot_be_read_is_named_by_whoever_reads_it(images, tmp_path, settings):
    (tmp_path / "3.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"3\.png") as fault:
        list(module_of(images, **settings).ordered("test", stack_pixels))
    assert "Traceback" not in str(fault.value)


def test_who_reads_ahead_ends_with_who_uses_it():
    batches = workers.ahead(iter(range(1000)))
    assert next(batches) == 0
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize(
    ("cores", "given", "batches", "fit"),
    [(1, "", 9, 0), (4, "", 9, 3), (64, "", 99, 8), (64, "3", 9, 2), (64, "", 2, 2)],
)
def test_workers_fit_the_machine(monkeypatch, cores, given, batches, fit):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert workers.fitting(batches) == fit


def test_workers_are_started_for_files_that_are_not_kept_and_for_nothing_else(images, tmp_path, monkeypatch):
    monkeypatch.setattr("vlmbench.domains.datamodule.fitting", lambda batches: batches)
    assert module_of(images, num_workers=-1).ordered("test", stack_pixels).num_workers == 3
    kept = module_of(images, num_workers=-1, cache=tmp_path / "cache", cache_gib=1.0)
    assert kept.ordered("test", stack_pixels).num_workers == 0
    synthetic = Domain("dots", "xray", "diagnosis", images.examples, SimpleNamespace(load=images.images.load))
    assert module_of(synthetic, num_workers=-1).ordered("test", stack_pixels).num_workers == 0


def test_the_share_of_a_step_that_waits_leaves_out_the_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vlmbench.modules.waiting.time.perf_counter", lambda: now[0])

    def steps(wait: DataWait, count: int, waited: float, computed: float) -> None:
        for _ in range(count):
            now[0] += waited
            wait.on_train_batch_start(CPU, MODULE)
            now[0] += computed
            wait.on_train_batch_end(CPU, MODULE)

    wait = DataWait()
    wait.on_train_epoch_start(CPU, MODULE)
    steps(wait, WARM, 5.0, 1.0)  # cold
    steps(wait, LEAST - 1, 1.0, 3.0)
    assert wait.share("train") is None
    steps(wait, 1, 1.0, 3.0)
    assert wait.share("train") == 0.25
    now[0] += 100.0  # validation
    wait.on_train_epoch_start(CPU, MODULE)  # a second epoch: the first is left out
    steps(wait, LEAST, 1.0, 9.0)
    assert wait.share("train") == 0.1
    assert wait.share("predict") is None


def test_a_cell_imports_what_it_needs_and_no_more():
    told = "import sys, vlmbench.cell.work; print(*sys.modules)"
    modules = set(
        subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()
    )
    heavy = {"open_clip", "timm", "peft", "bitsandbytes", "wandb", "sklearn", "skimage", "optuna"}
    assert not heavy & modules
    assert {"lightning", "torch"} <= modules
