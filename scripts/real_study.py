"""One report over real images: both tiny pairs on three diagnosis sets and one of questions, and what corruption does.

    python scripts/real_study.py --data DIR --out DIR [--seeds 0,1,2] [-- trainer.max_epochs=5 ...]

DIR holds `cxr_kermany`, `derm_ham10000` and `us_busi`, folders of images with a `labels.csv`, and `vqa_rad`, with a
`qa.jsonl`. Everything is run by the commands of the README, which are printed; what is done already is not done again.
The tiny models show that the pipeline works on real images, and nothing about medicine.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONTRASTIVE, GENERATIVE = ("tiny_clip", "tiny_medclip"), ("tiny_llava", "tiny_llava_med")
DRAWN = ("lora", "coop", "clip_adapter")  # methods of which another seed gives another result
DOMAINS = {
    "cxr_kermany": "/schema/domain/folder@_here_|radiograph|label_column: label_binary",
    "derm_ham10000": "/schema/domain/folder@_here_|dermoscopy|",
    "us_busi": "/schema/domain/folder@_here_|ultrasound|",
    "real_vqa_rad": "/schema/domain/vqa_jsonl@_here_|radiology|split_field: split_image_disjoint",
}
CORRUPTED = ("noise", "blur", "contrast")
TRANSFERRED = ("zero_shot", "linear_probe", "lora")


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four sets")
    parser.add_argument("--out", type=Path, required=True, help="where records and the report go")
    parser.add_argument("--seeds", default="0,1,2", help="of the methods that draw something (default: 0,1,2)")
    parser.add_argument("overrides", nargs="*", help="further overrides of training, after --")
    asked = parser.parse_args(arguments)
    sets = {name: asked.data / name.removeprefix("real_") for name in DOMAINS}
    if missing := [str(folder) for folder in sets.values() if not folder.is_dir()]:
        parser.error(f"--data {asked.data} lacks {', '.join(missing)}")
    conf = write_domains(asked.out / "conf" / "domain", sets)
    records = asked.out / "runs"
    images = [name for name in DOMAINS if name != "real_vqa_rad"]
    train = ["vlmbench.train", "-m", "--config-dir", str(conf), f"output={records}", *asked.overrides]
    diagnosis = [f"model={','.join(CONTRASTIVE)}", f"domain={','.join(images)}"]
    questions = [f"model={','.join(GENERATIVE)}", "task=vqa", "domain=real_vqa_rad"]
    status = [
        run([*train, *diagnosis, "finetune=zero_shot,linear_probe"]),
        run([*train, *diagnosis, f"finetune={','.join(DRAWN)}", f"seed={asked.seeds}"]),
        run([*train, *questions, "finetune=zero_shot"]),
        run([*train, *questions, "finetune=lora", "finetune.scope=ML", f"seed={asked.seeds}"]),
    ]
    transfers = []
    for folder, domain, method in finished(records):
        if method in TRANSFERRED:
            evaluate = ["vlmbench.evaluate", "-m", "--config-dir", str(conf), f"cell={folder}", f"domain={domain}"]
            worse = [f"domain.corruption={','.join(CORRUPTED)}", "domain.severity=1,3,5"]
            transfers += [[*evaluate, *worse], [*evaluate, "domain.corruption=blank,shuffled"]]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # one core a process
        status += pool.map(lambda words: run(words, OMP_NUM_THREADS="1"), transfers)
    report = [
        "vlmbench.report",
        f"records={records}",
        f"output={asked.out / 'report'}",
        "title=Tiny models on real images",
    ]
    return max(*status, run(report))


def write_domains(folder: Path, sets: dict[str, Path]) -> Path:
    """Write a YAML file a set, and return the directory for `--config-dir`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, told in DOMAINS.items():
        schema, modality, further = told.split("|")
        root = sets[name].resolve()
        lines = ["defaults:", f"  - {schema}", "", f"name: {name}", f"modality: {modality}", f"root: {root}", further]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


def finished(records: Path) -> list[tuple[Path, str, str]]:
    """Folder, domain and method of each finished cell of the first seed."""
    from vlmbench.reporting.load import load_rows

    rows, _ = load_rows(records)
    return [
        ((records / row.path).parent, row.domain, row.finetune)
        for row in rows
        if row.done and row.kind == "cell" and row.seed == 0
    ]


def run(words: list[str], **environment: str) -> int:
    """Print and run one of the project's commands; returns its exit status."""
    print("\npython -m " + shlex.join(words), file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, "-m", *words], check=False, env=os.environ | environment).returncode


if __name__ == "__main__":
    sys.exit(main())
