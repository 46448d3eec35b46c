"""What is shipped: the wheel with its YAML files and checkpoints, and how the checkpoints were made."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vlmbench.weights.source import ASSETS

ROOT = Path(__file__).resolve().parents[1]
TINY = ("tiny_clip", "tiny_medclip", "tiny_llava", "tiny_llava_med")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_brings_conf_and_checkpoints(wheel):
    shipped = {path.relative_to(wheel / "vlmbench" / "conf") for path in (wheel / "vlmbench" / "conf").rglob("*.yaml")}
    assert shipped == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    for name in TINY:
        assert (wheel / "vlmbench" / "assets" / name / "model.safetensors").is_file()
    assert (wheel / "vlmbench" / "reporting" / "templates" / "report.html.j2").is_file()
    assert (wheel / "hydra_plugins" / "vlmbench_grid.py").is_file()  # where Hydra looks for plugins


def test_the_installed_package_composes_from_anywhere(wheel, tmp_path):
    command = [sys.executable, "-P", "-m", "vlmbench.train", "model=tiny_llava_med", "--cfg", "job"]
    script = f"import sys; sys.path.insert(0, {str(wheel)!r}); sys.argv = {command[3:]!r}\n"
    script += "import vlmbench, runpy; assert vlmbench.__file__.startswith(sys.path[0]); sys.argv[0] = 'train'\n"
    script += "sys.argv = ['train', *sys.argv[2:]] if sys.argv[1] == 'vlmbench.train' else sys.argv\n"
    script += "runpy.run_module('vlmbench.train', run_name='__main__')\n"
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "name: tiny_llava_med" in ran.stdout
    assert not list(tmp_path.iterdir())


def test_the_tiny_checkpoints_are_those_of_their_provenance():
    provenance = json.loads((ASSETS / "PROVENANCE.json").read_text())
    assert set(provenance) == set(TINY)
    total = 0
    for name in TINY:
        weights = (ASSETS / name / "model.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == provenance[name]["sha256"]
        assert provenance[name]["trainings"][0].startswith("python -m vlmbench.train ")
        total += sum(path.stat().st_size for path in (ASSETS / name).iterdir())
    assert total < 12e6


def test_no_file_of_the_project_names_a_place_of_one_machine():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert len(files) > 50
    for name in files:
        path = ROOT / name
        if (
            path.suffix in {".py", ".yaml", ".md", ".toml", ".json", ".cff"}
            and path.exists()
            and "tests" not in path.parts
        ):
            text = path.read_text(encoding="utf-8")
            assert "/root/" not in text, name
            assert "/home/" not in text, name
