"""Frozen features: encoded once for all cells that want them, and the same results with and without the cache."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vlmbench.records.features import DATA, FEATURES, Arrays, kept_features

SMALL = ["domain.patients=20", "trainer.max_epochs=2", "trainer.batch_size=8", "task.resamples=100"]


def made(value: float, calls: list[int] | None = None) -> Arrays:
    if calls is not None:
        calls.append(1)
    return {"features": np.full((5, 3), value, np.float32), "embeddings": np.full((5, 2, 4), value + 1, np.float32)}


def test_features_are_made_once_and_given_back_as_they_were(tmp_path):
    calls: list[int] = []
    first, kept = kept_features(tmp_path, 2**20, {"a": 1}, lambda: made(0.1, calls), "x")
    again, kept_now = kept_features(tmp_path, 2**20, {"a": 1}, lambda: made(0.2, calls), "x")
    assert (kept, kept_now, len(calls)) == (False, True, 1)
    assert first.keys() == again.keys() == {"features", "embeddings"}
    assert all(np.array_equal(first[name], again[name]) for name in first)
    other, kept_other = kept_features(tmp_path, 2**20, {"a": 2}, lambda: made(0.2, calls), "x")
    assert not kept_other
    assert other["features"][0, 0] == np.float32(0.2)


def test_what_is_kept_is_mapped_from_the_disk_and_stays_as_it_is(tmp_path):
    kept_features(tmp_path, 2**20, {}, lambda: made(1.0), "x")
    found, _ = kept_features(tmp_path, 2**20, {}, lambda: made(2.0), "x")
    assert isinstance(found["embeddings"], np.memmap)
    assert found["embeddings"].flags.aligned
    found["features"][:] = 9.0  # as a tensor over it might
    again, kept = kept_features(tmp_path, 2**20, {}, lambda: made(2.0), "x")
    assert kept
    assert (again["features"] == 1.0).all()


@pytest.mark.parametrize("damage", ["empty", "header", "short", "flipped"])
def test_damaged_features_are_made_anew(tmp_path, damage, caplog):
    kept_features(tmp_path, 2**20, {}, lambda: made(0.1), "x")
    (path,) = (tmp_path / FEATURES).glob(f"*/{DATA}")
    whole = path.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    path.write_bytes({"empty": b"", "header": b"{" * 300, "short": whole[:-300], "flipped": flipped}[damage])
    found, kept = kept_features(tmp_path, 2**20, {}, lambda: made(0.3), "x")
    assert not kept
    assert found["features"][0, 0] == np.float32(0.3)
    assert "damaged" in caplog.text
    assert kept_features(tmp_path, 2**20, {}, lambda: made(0.4), "x")[1]


def test_what_finds_no_room_or_no_disk_is_made_for_the_cell_alone(tmp_path, caplog):
    assert not kept_features(tmp_path, 10, {}, lambda: made(1.0), "x")[1]
    assert "feature_cache_gib" in caplog.text
    assert not kept_features(tmp_path, 10, {}, lambda: made(1.0), "x")[1]
    assert not kept_features(tmp_path, 0, {}, lambda: made(1.0), "x")[1]
    (tmp_path / "file").write_text("no folder")
    assert kept_features(tmp_path / "file", 2**20, {}, lambda: made(1.0), "x")[0]["features"].shape == (5, 3)


def test_the_longest_unused_make_room(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_fill, args=(tmp_path,))
    process.start()
    process.join()
    before = {path.parent.name for path in (tmp_path / FEATURES).glob(f"*/{DATA}")}
    assert len(before) == 4
    kept_features(tmp_path, 3000, {"name": 9}, lambda: made(1.0), "x")
    left = sorted((tmp_path / FEATURES).glob(f"*/{DATA}"))
    assert sum(path.stat().st_size for path in left) <= 3000
    assert len({path.parent.name for path in left} - before) == 1


def _fill(root: Path) -> None:
    for name in range(4):
        kept_features(root, 2**20, {"name": name}, lambda: made(1.0), "x")


def _slow(root: Path, log: Path) -> None:
    def slowly() -> Arrays:
        with log.open("a") as handle:
            handle.write("made\n")
        time.sleep(0.5)
        return made(2.0)

    kept_features(root, 2**20, {"shared": 1}, slowly, "x")


def test_processes_that_want_the_same_wait_for_the_one_that_makes_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_slow, args=(tmp_path, tmp_path / "log")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text() == "made\n"


def test_cells_of_one_model_and_domain_encode_once_and_end_as_without_the_cache(tmp_path):
    # A command of its own: what cells are forked from has the variables that it was started with.
    environment = {**os.environ, "VLMBENCH_CACHE": str(tmp_path / "cache")}
    train = [sys.executable, "-m", "vlmbench.train", "-m"]
    for output, gib in (("with", 1), ("without", 0)):
        words = ["finetune=zero_shot,linear_probe,lora", "seed=0,1", f"trainer.feature_cache_gib={gib}"]
        subprocess.run([*train, *words, *SMALL, f"output={tmp_path / output}"], env=environment, check=True)
    kept = {}
    for path in sorted((tmp_path / "with").rglob("record.json")):
        record = json.loads(path.read_text())
        kept[path.parent.name] = record["cost"]["features_kept"]
        twin = next((tmp_path / "without").rglob(f"{path.parent.name}/record.json"))
        assert json.loads(twin.read_text())["metrics"] == record["metrics"]
        predictions = [(one.parent / "predictions.parquet").read_bytes() for one in (path, twin)]
        assert predictions[0] == predictions[1]
    assert len(kept) == 4  # a probe of another seed is the same one, and zero shots are
    assert sum(not was for splits in kept.values() for was in splits.values()) == 3  # each split once
    assert len(list((tmp_path / "cache" / FEATURES).glob(f"*/{DATA}"))) == 3
