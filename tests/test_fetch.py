"""`python -m vlmbench.fetch` against a server that answers as the hub does, then the cluster without a network."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import Hub

from vlmbench.weights.download import PART
from vlmbench.weights.source import ASSETS

TINY = ASSETS / "tiny_clip"
WEIGHTS = (TINY / "model.safetensors").read_bytes()

YAML = """# Fetched from the imitation. Used by: tests
defaults:
  - /schema/model/{kind}@_here_
{more}
name: {name}
source: {source}
role: generalist
family: clip
learning_rates: {{lora: 2.0e-3}}
"""


class Place:
    """A machine with its own caches, a folder of configurations, and a server in place of the hub."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        self.environment |= {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(folder / "hf"),
            "VLMBENCH_CACHE": str(folder / "vlmbench"),
            "OMP_NUM_THREADS": "1",
        }
        (folder / "conf" / "model").mkdir(parents=True)

    def model(self, name: str, source: str, more: str = "", kind: str = "contrastive") -> None:
        text = YAML.format(name=name, source=source, kind=kind, more="")
        (self.folder / "conf" / "model" / f"{name}.yaml").write_text(text + more)

    def command(self, command: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", f"vlmbench.{command}", "--config-dir", str(self.folder / "conf"), *arguments]

    def run(self, command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(command, *arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    @property
    def lock(self) -> dict:
        return json.loads((self.folder / "vlmbench.lock").read_text())["sources"]

    @property
    def blobs(self) -> Path:
        return self.folder / "hf" / "hub" / "models--owner--tiny" / "blobs"

    def gets(self) -> int:
        """Bytes of the weights that the server sent."""
        return sum(self.hub.sent.get("model.safetensors", []))


@pytest.fixture
def place(tmp_path):
    hub = Hub()
    server = hub.serve()
    hub.add_folder("owner/tiny", TINY)
    yield Place(tmp_path, hub)
    server.shutdown()


def test_a_cell_runs_without_a_network_after_its_model_was_fetched(place):
    place.model("real", "owner/tiny")
    ran = place.run("fetch", "model=real")
    assert ran.returncode == 0, ran.stderr
    assert "phantom_radiograph: made on this machine, nothing to fetch" in ran.stdout
    assert [line.split() for line in ran.stdout.splitlines()[-2:]] == [
        ["model", "revision", "files", "GiB", "status"],
        ["real", "c" * 10, "5", "0.00", "downloaded"],
    ]
    assert "model.safetensors  2.4 MiB" in ran.stderr  # one line a file, as stderr is no terminal
    entry = place.lock["owner/tiny"]
    assert entry["commit"] == "c" * 40
    assert entry["files"]["model.safetensors"] == {
        "size": len(WEIGHTS),
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    }
    assert "README.md" not in entry["files"]
    # Fetched again: nothing is asked for, and with no network either.
    asked = len(place.hub.asked)
    again = place.run("fetch", "model=real", HF_HUB_OFFLINE="1")
    assert again.returncode == 0
    assert "present" in again.stdout
    small = ["domain.patients=24", "task.resamples=100", "finetune=zero_shot"]
    trained = place.run("train", "model=real", *small, HF_HUB_OFFLINE="1")
    assert trained.returncode == 0, trained.stderr
    assert "done  auroc" in trained.stdout
    assert len(place.hub.asked) == asked
    (record,) = place.folder.rglob("record.json")
    # And where the hub is within reach nothing asks it: what is loaded is a folder.
    record.unlink()
    assert place.run("train", "model=real", *small).returncode == 0
    assert len(place.hub.asked) == asked
    assert json.loads(record.read_text())["hashes"]["weights"] == f"owner/tiny@{'c' * 40}"


def test_the_cache_is_one_that_huggingface_hub_reads_and_the_server_is_one_that_it_downloads_from(place):
    place.model("real", "owner/tiny")
    assert place.run("fetch", "model=real").returncode == 0
    before = place.gets()
    script = (
        "from huggingface_hub import snapshot_download as s\nprint(s('owner/tiny', allow_patterns=['*.safetensors']))"
    )
    theirs = subprocess.run([sys.executable, "-c", script], env=place.environment, capture_output=True, text=True)
    assert theirs.stdout.strip().endswith("c" * 40), theirs.stderr
    assert place.gets() == before
    place.environment["HF_HOME"] = str(place.folder / "other")
    theirs = subprocess.run([sys.executable, "-c", script], env=place.environment, capture_output=True, text=True)
    assert (Path(theirs.stdout.strip()) / "model.safetensors").read_bytes() == WEIGHTS
    assert place.gets() == before + len(WEIGHTS)


def test_a_killed_download_goes_on_where_it_stopped(place):
    place.model("real", "owner/tiny")
    place.hub.slow["model.safetensors"] = 0.02
    process = subprocess.Popen(
        place.command("fetch", "model=real"), cwd=place.folder, env=place.environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not [part for part in place.blobs.glob(f"*{PART}") if part.stat().st_size > 500_000]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place.folder / "vlmbench.lock").exists()
    (part,) = place.blobs.glob(f"*{PART}")
    have = part.stat().st_size
    assert 500_000 < have < len(WEIGHTS)
    # Half a download is not a checkpoint.
    offline = place.run("train", "model=real", "finetune=zero_shot", HF_HUB_OFFLINE="1")
    assert offline.returncode == 2
    assert "it lacks model.safetensors" in offline.stderr
    place.hub.slow.clear()
    place.hub.sent.clear()
    ran = place.run("fetch", "model=real")
    assert ran.returncode == 0, ran.stderr
    assert place.hub.sent == {**place.hub.sent, "model.safetensors": [len(WEIGHTS) - have]}
    assert "tokenizer.json" not in place.hub.sent
    assert "continued at" in ran.stderr
    assert place.lock["owner/tiny"]["files"]["model.safetensors"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()


def test_a_connection_that_breaks_is_continued_within_the_same_run(place):
    place.model("real", "owner/tiny")
    place.hub.cut_after["model.safetensors"] = 1_500_000
    ran = place.run("fetch", "model=real")
    assert ran.returncode == 0, ran.stderr
    first, second = place.hub.sent["model.safetensors"]
    assert first == 1_500_000
    assert second < len(WEIGHTS) - 1_000_000


def test_wrong_bytes_are_moved_aside_and_the_next_run_is_right(place):
    place.model("real", "owner/tiny")
    place.hub.corrupt.add("model.safetensors")
    ran = place.run("fetch", "model=real")
    assert ran.returncode == 1
    assert "missing" in ran.stdout
    assert "does not have the published hash" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(list(place.blobs.glob("*.damaged"))) == 1
    assert not list(place.folder.rglob("snapshots/*/model.safetensors"))
    place.hub.corrupt.clear()
    assert place.run("fetch", "model=real").returncode == 0


def test_small_files_are_compared_with_what_git_calls_them(place):
    place.model("real", "owner/tiny")
    place.hub.corrupt.add("tokenizer_config.json")
    ran = place.run("fetch", "model=real")
    assert ran.returncode == 1
    assert "tokenizer_config.json does not have the published hash" in ran.stderr


def test_a_file_that_was_damaged_in_the_cache_is_brought_anew(place):
    place.model("real", "owner/tiny")
    assert place.run("fetch", "model=real").returncode == 0
    (weights,) = place.folder.rglob("snapshots/*/model.safetensors")
    weights.resolve().write_bytes(WEIGHTS[:-10])
    broken = place.run("train", "model=real", "finetune=zero_shot")
    assert broken.returncode == 2
    assert f"{weights} is truncated" in broken.stderr
    ran = place.run("fetch", "model=real")
    assert ran.returncode == 0, ran.stderr
    assert "model.safetensors is not as published; moved aside and brought anew" in ran.stderr
    assert weights.read_bytes() == WEIGHTS


def test_every_model_of_a_grid_is_tried_and_one_that_is_missing_makes_the_status_1(place):
    more = "companions:\n  tokenizer: {source: owner/tokenizer, files: ['tokenizer*'], download_gib: 0.1}\n"
    place.model("real", "owner/tiny", more)
    place.model("gated", "owner/gated", "gated: true\nhow_to_get: Write to the owners.\n")
    place.model("wrong", "owner/tiny2", "revision: v9\n")
    place.model("none", "owner/none")
    place.model("local", "./nowhere")
    place.hub.add_folder("owner/tokenizer", TINY)
    place.hub.add_folder("owner/gated", TINY, gated=True)
    place.hub.add_folder("owner/tiny2", TINY)
    ran = place.run("fetch", "-m", "model=gated,wrong,none,local,real,tiny_clip", "finetune=zero_shot,linear_probe")
    assert ran.returncode == 1
    rows = {line.split("  ")[0]: line.split()[-1] for line in ran.stdout.splitlines()[-7:]}
    assert rows == {
        "gated": "missing",
        "wrong": "missing",
        "none": "missing",
        "local": "missing",
        "real": "downloaded",
        "real: tokenizer": "downloaded",
        "tiny_clip": "shipped",
    }
    faults = [line for line in ran.stderr.splitlines() if line.startswith("vlmbench: ")]
    assert len(faults) == 4
    assert "no token is set here. Write to the owners." in faults[0]
    assert "owner/tiny2 has no revision v9" in faults[1]
    assert "There is no repository owner/none" in faults[2]
    assert "'./nowhere' is no folder" in faults[3]
    assert set(place.lock) == {"owner/tiny", "owner/tokenizer"}
    assert set(place.lock["owner/tokenizer"]["files"]) == {"tokenizer.json", "tokenizer_config.json"}


def test_a_named_grid_is_fetched_whole(place):
    ran = place.run("fetch", "sweep=demo")
    assert ran.returncode == 0, ran.stderr
    assert [line.split()[0] for line in ran.stdout.splitlines()[-4:]] == [
        "tiny_clip",
        "tiny_medclip",
        "tiny_llava",
        "tiny_llava_med",
    ]
    assert "phantom_ultrasound: made on this machine" in ran.stdout
    assert not place.hub.asked


def test_the_lock_is_kept_until_an_update_is_asked_for(place):
    place.model("real", "owner/tiny")
    assert place.run("fetch", "model=real").returncode == 0
    place.hub.repositories["owner/tiny"].commit = "d" * 40
    assert place.run("fetch", "model=real").returncode == 0
    assert place.lock["owner/tiny"]["commit"] == "c" * 40
    contradicted = place.run("fetch", "model=real", f"model.revision={'d' * 40}")
    assert contradicted.returncode == 1
    assert "update=true" in contradicted.stderr
    updated = place.run("fetch", "model=real", "update=true", "lock=vlmbench.lock")
    assert updated.returncode == 0, updated.stderr
    assert place.lock["owner/tiny"]["commit"] == "d" * 40


def test_another_machine_brings_the_locked_commit(place):
    place.model("real", "owner/tiny")
    assert place.run("fetch", "model=real").returncode == 0
    place.environment["HF_HOME"] = str(place.folder / "elsewhere")
    ran = place.run("fetch", "model=real")
    assert ran.returncode == 0, ran.stderr
    assert "/api/models/owner/tiny/revision/" + "c" * 40 in {path for _, path, _ in place.hub.asked}


def test_without_a_server_a_whole_cache_is_locked_as_it_is(place):
    place.model("real", "owner/tiny")
    assert place.run("fetch", "model=real").returncode == 0
    (place.folder / "vlmbench.lock").unlink()
    ran = place.run("fetch", "model=real", HF_ENDPOINT="http://127.0.0.1:9")
    assert ran.returncode == 0, ran.stderr
    assert "taken from the cache, not compared with the hub" in ran.stderr
    assert place.lock["owner/tiny"]["commit"] == "c" * 40


def test_an_offline_machine_fails_within_seconds(place):
    place.model("real", "owner/tiny")
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        start = time.monotonic()
        ran = place.run("train", "model=real", "finetune=zero_shot", **environment)
        assert ran.returncode == 2
        assert "vlmbench.fetch" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert time.monotonic() - start < 15
