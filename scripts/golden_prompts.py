"""Write what each release's own processor makes of one question.

python scripts/golden_prompts.py tests/golden/prompts.json

No code of the package takes part: the tests compare its prompts with this file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from releases import generative, generative_dynamic
from releases.common import sample_image

QUESTION = "What abnormality does the image show?"
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]


def golden(folder: Path, model: dict[str, Any]) -> dict[str, Any]:
    """Return the rendered text, the tokens and the types of tokens, where there are any.

    Args:
        folder: A release's files.
        model: Its YAML; what the release lacks is set from it.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    settings = dict(model.get("processor", {}))
    of_images = settings.pop("image_processor", {})
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **of_images)
    for key, value in settings.items():
        setattr(processor, key, value)
    processor.chat_template = model.get("chat_template") or processor.chat_template
    text = processor.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    # BLIP-2's processor writes the image's tokens itself, before everything.
    plain = text.replace("<image>", "") if type(processor).__name__ == "Blip2Processor" else text
    # The begin token is written by the tokenizer, unless the template has written it.
    bos = processor.tokenizer.bos_token
    out = processor(images=[sample_image()], text=[plain], add_special_tokens=not (bos and plain.startswith(bos)))
    types = {key: list(out[key][0]) for key in ("token_type_ids", "mm_token_type_ids") if key in out}
    return {"text": text, "ids": [int(token) for token in out["input_ids"][0]], **types}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    target = parser.parse_args().out
    found = {}
    for name, make in sorted({**generative.MAKERS, **generative_dynamic.MAKERS}.items()):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            yaml = Path(__file__).parents[1] / "conf" / "model" / f"{name}.yaml"
            found[name] = golden(Path(folder) / "main", OmegaConf.to_container(OmegaConf.load(yaml)))  # type: ignore[arg-type]
    rows = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
