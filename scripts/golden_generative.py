"""Record what a release's own classes make of one question: prompt, tokens, logits and the greedy answer.

python scripts/make_release.py NAME --out RELEASES/NAME      for each model
python scripts/golden_generative.py RELEASES tests/golden/generative.json

No code of the package takes part, and it runs under transformers 4 too: the tests hold the package against what an
older program computes on the same files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import OmegaConf
from releases.common import sample_image

QUESTION = "What abnormality does the image show?"
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
NEW_TOKENS = 6


def load_processor(folder: Path, settings: dict[str, Any]) -> Any:
    """Return a release's processor with PIL's arithmetic and what a YAML sets on top."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    of_images = dict(settings.pop("image_processor", {}))
    size = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8")).get("size", {})
    if "longest_edge" in size:  # transformers 4 reads the limits of Qwen3-VL under these names alone
        of_images = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"], **of_images}
    kind = {"use_fast": False} if transformers.__version__ < "5" else {"backend": "pil"}
    processor.image_processor = transformers.AutoImageProcessor.from_pretrained(folder, **kind, **of_images)
    for key, value in settings.items():
        setattr(processor, key, value)
    return processor


@torch.no_grad()
def record(folder: Path, yaml: dict[str, Any]) -> dict[str, Any]:
    """Return the rendered text, its tokens, the first eight logits after them and the tokens of the answer.

    Args:
        folder: A release's files.
        yaml: The model's YAML; what the release lacks is set from it.
    """
    processor = load_processor(folder, dict(yaml.get("processor", {})))
    processor.chat_template = yaml.get("chat_template") or processor.chat_template
    text = processor.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    # BLIP-2's processor writes the image's tokens itself, before everything.
    plain = text.replace("<image>", "") if type(processor).__name__ == "Blip2Processor" else text
    # The begin token is written by the tokenizer, unless the template has written it.
    bos = processor.tokenizer.bos_token
    begin = not (bos and plain.startswith(bos))
    inputs = processor(images=[sample_image()], text=[plain], add_special_tokens=begin, return_tensors="pt")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    logits = model(**inputs).logits[0, -1, :8]
    answer = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, repetition_penalty=1.0)
    return {
        "text": text,
        "ids": inputs["input_ids"][0].tolist(),
        "logits": [round(value, 5) for value in logits.tolist()],
        "answer": answer[0, inputs["input_ids"].shape[1] :].tolist(),
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, help="folder with what make_release.py wrote for each model")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    rows = [f'  "made with": "transformers {transformers.__version__}"']
    for folder in sorted(arguments.releases.iterdir()):
        yaml = OmegaConf.load(Path(__file__).parents[1] / "conf" / "model" / f"{folder.name}.yaml")
        found = record(folder / "main", OmegaConf.to_container(yaml))  # type: ignore[arg-type]
        rows.append(f"  {json.dumps(folder.name)}: {json.dumps(found)}")
    arguments.out.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
