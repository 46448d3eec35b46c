"""SLAKE in miniature: three tables in two languages, folders of images with open and closed questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniatures.pictures import picture

#: Question, answer, declared type and content type; the answer None is what the image decides.
_ENGLISH = (
    ("Which part of the body does this image belong to?", "Chest", "OPEN", "Position"),
    ("Is there a bright disc in the image?", None, "CLOSED", "Abnormality"),
    ("Is this a CT or an MRI?", "CT", "CLOSED", "Modality"),
    ("Does the picture contain more bone or air?", "Soft tissue", "CLOSED", "Quantity"),
)
_CHINESE = ("图像里有亮斑吗?", None, "CLOSED", "Abnormality")


def questions(number: int, marked: bool, first: int) -> list[dict[str, Any]]:
    """Return the questions on one image in the published fields."""
    rows = []
    for n, (question, answer, kind, content) in enumerate((*_ENGLISH, _CHINESE)):
        chinese = question == _CHINESE[0]
        given = answer or (("有" if marked else "没有") if chinese else ("Yes" if marked else "No"))
        rows.append(
            {
                "img_id": number,
                "img_name": f"xmlab{number}/source.jpg",
                "question": question,
                "answer": given,
                "q_lang": "zh" if chinese else "en",
                "location": "Lung" if number % 2 else "Abdomen",
                "modality": ("CT", "MRI", "X-Ray")[number % 3],
                "answer_type": kind,
                "base_type": "vqa",
                "content_type": content,
                "triple": ["vhead", "_", "_"],
                "qid": first + n,
            }
        )
    return rows


def make(out: Path, seed: int = 0) -> None:
    """Write the tables and the images below `out`."""
    rng = np.random.default_rng(seed)
    number = asked = 0
    for split, count in (("train", 16), ("validation", 6), ("test", 6)):
        rows: list[dict[str, Any]] = []
        for n in range(count):
            rows += questions(number, n % 2 == 0, asked)
            asked += len(_ENGLISH) + 1
            folder = out / "imgs" / f"xmlab{number}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(rng, marked=n % 2 == 0, colour=False)).save(folder / "source.jpg")
            number += 1
        (out / f"{split}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
