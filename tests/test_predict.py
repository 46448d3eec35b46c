"""Images of one's own, put to finished cells by the real command."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from vlmbench.cell.domain import build_domain
from vlmbench.config.restore import cell_from_dict


def as_files(ran, folder, count=4):
    """Write test images of a run as PNG files; returns the files with the rows of the predictions about them."""
    cell = cell_from_dict(ran.record["config"])
    domain = build_domain(cell.domain, cell.task.name)  # type: ignore[arg-type]
    rows = ran.predictions.head(count).to_dict("records")
    files = []
    for number, row in enumerate(rows):
        path = folder / f"own{number}.png"
        domain.images.load(row["image"]).save(path)
        files.append(path)
    return files, rows


def listed(files):
    return f"image=[{','.join(map(str, files))}]"


@pytest.mark.parametrize(
    "method",
    [
        ["finetune=zero_shot"],
        ["finetune=linear_probe"],
        ["finetune=lora", "trainer.max_epochs=1"],
        ["finetune=coop", "trainer.max_epochs=1"],
        ["finetune=zero_shot", "domain=phantom_fundus", "domain.target=multilabel"],
    ],
    ids=lambda words: "-".join(words),
)
def test_a_contrastive_cell_says_of_its_test_images_what_it_predicted(method, train, command, tmp_path):
    ran = train(*method)
    files, rows = as_files(ran, tmp_path)
    status, out, err = command("predict", f"run={ran.cells[0]}", listed(files), "json=true")
    assert status == 0, err
    labels = ran.record["data"]["labels"]
    for said, path, row in zip(json.loads(out), files, rows, strict=True):
        assert said["image"] == str(path)
        expected = [row[f"score_{i}"] for i in range(len(labels))]
        # A row's last digits depend on the rows beside it.
        np.testing.assert_allclose([said["scores"][label] for label in labels], expected, atol=2e-6)
        assert list(said["scores"].values()) == sorted(said["scores"].values(), reverse=True)


def test_a_generative_cell_answers_its_test_questions_as_it_did(train, command, tmp_path):
    ran = train("model=tiny_llava", "task=vqa", "finetune=lora", "trainer.max_epochs=1", "domain.patients=16")
    files, rows = as_files(ran, tmp_path, count=20)
    kinds = {row["answer_type"]: (path, row) for path, row in zip(files, rows, strict=True)}
    assert set(kinds) == {"open", "closed"}
    for kind, (path, row) in kinds.items():
        options = [f"options=[{','.join(row['options'])}]"] if kind == "closed" else []
        words = [f"run={ran.cells[0]}", f"image={path}", f"question='{row['question']}'", *options]
        status, out, err = command("predict", *words, "json=true")
        assert status == 0, err
        (said,) = json.loads(out)
        assert said["answer"] == row["prediction"]
        assert ("options" in said) == (kind == "closed")
        if kind == "closed":
            found = [said["options"][option]["log_likelihood"] for option in row["options"]]
            np.testing.assert_allclose(found, row["option_scores"], atol=1e-4)
            assert sum(value["share"] for value in said["options"].values()) == pytest.approx(1)


def test_what_does_not_go_together_is_told_before_torch(train, command, tmp_path):
    ran = train("finetune=linear_probe")
    (path,), _ = as_files(ran, tmp_path, count=1)
    broken = tmp_path / "broken.png"
    broken.write_bytes(path.read_bytes()[:200])
    gone = tmp_path / "gone"
    shutil.copytree(ran.cells[0], gone)
    (gone / "saved" / "head.safetensors").unlink()
    failed = tmp_path / "failed"
    shutil.copytree(ran.cells[0], failed)
    record = {**ran.record, "status": "failed", "error": {"type": "OSError", "message": "disk full."}}
    (failed / "record.json").write_text(json.dumps(record))
    run = f"run={ran.cells[0]}"
    for words, said in (
        ([run, "image=nowhere.png"], "no such file"),
        ([run, f"image={broken}"], "broken.png"),
        ([run, f"image={path}", "question=why"], "do not go with this cell"),
        ([run, "image=3"], "neither a file"),
        ([run], "image is not set"),
        ([f"run={tmp_path}", f"image={path}"], "holds no record.json"),
        ([f"run={gone}", f"image={path}"], "not whole"),
        ([f"run={failed}", f"image={path}"], "disk full"),
    ):
        status, _, err = command("predict", *words)
        assert status == 2, words
        assert said in err, err
    script = (
        "import sys\nfrom vlmbench.predict import main\ntry: main()\nexcept Exception: print('torch' in sys.modules)"
    )
    words = [sys.executable, "-c", script, f"run={gone}", f"image={path}"]
    assert subprocess.run(words, capture_output=True, text=True).stdout.strip() == "False"


def test_text_shows_the_likeliest_first_and_a_question_is_needed_where_one_is_asked(train, command, tmp_path):
    ran = train("model=tiny_llava", "task=vqa", "finetune=zero_shot", "domain.patients=10")
    files, _ = as_files(ran, tmp_path, count=1)
    words = [f"run={ran.cells[0]}", f"image={files[0]}"]
    status, _, err = command("predict", *words)
    assert status == 2
    assert "question is not set" in err
    asked = "question='Is there a mass?'"
    for options in ("options=[yes]", "options=[yes,yes]"):  # of which the likeliest would be sure of itself
        status, _, err = command("predict", *words, asked, options)
        assert status == 2
        assert "nothing to choose" in err
    status, out, err = command("predict", *words, asked, "options=[no,yes]", "multiple_choice=true")
    assert status == 0, err
    assert out.splitlines()[:2] == [str(files[0]), "  Is there a mass?"]
    shares = [float(line.split()[0]) for line in out.splitlines()[3:]]
    assert len(shares) == 2
    assert shares[0] >= shares[1]


def test_a_transfer_is_tried_with_its_own_prompts_after_its_files_are_gone(train, command, tmp_path):
    ran = train("finetune=zero_shot")
    root = tmp_path / "clinic"
    root.mkdir()
    files, rows = as_files(ran, root, count=12)
    names = ["sick" if row["target"] else "well" for row in rows]
    splits = ["test", "val", "train"] * 4
    table = zip(files, names, range(12), splits, strict=True)
    lines = [f"{path.name},{name},p{number},{split}" for path, name, number, split in table]
    (root / "labels.csv").write_text("\n".join(["image,label,patient_id,split", *lines]))
    own = ["domain.name=clinic", "domain.modality=radiograph", "domain.labels=[well,sick]", "domain.audit_hashes=false"]
    prompts = ["domain.label_prompts={well: [a normal chest], sick: [a white spot, a mass]}"]
    where = [f"cell={ran.cells[0]}", "domain=folder", f"domain.root={root}", *own, *prompts]
    status, _, err = command("evaluate", *where)
    assert status == 0, err
    (transfer,) = (ran.cells[0] / "transfer").glob("clinic-*")
    expected = pd.read_parquet(transfer / "predictions.parquet").iloc[0]
    image = shutil.copy(root / expected["image"], tmp_path / "mine.png")
    shutil.rmtree(root)
    status, out, err = command("predict", f"run={transfer}", f"image={image}", "json=true")
    assert status == 0, err
    (said,) = json.loads(out)
    assert said["scores"]["sick"] == pytest.approx(expected["score_1"], abs=2e-6)
