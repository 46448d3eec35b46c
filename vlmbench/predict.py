"""Put images of your own to a finished cell.

python -m vlmbench.predict run=runs/diagnosis/CELL image=chest.png
python -m vlmbench.predict run=runs/diagnosis/CELL image=[a.png,b.dcm] json=true
python -m vlmbench.predict run=runs/vqa/CELL image=chest.png question='Is there an effusion?' options=[yes,no]

Research only: what it prints is no medical advice. The last digits of a probability depend on which images are given
together. Of a cell that was zero-shot by a hosted model, the image goes to its endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlmbench.config import schema
from vlmbench.config.checks import check_fields
from vlmbench.config.entry import compose, run
from vlmbench.config.faults import ConfigError


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("predict", __doc__ or "")
    for config in composed.configs:
        check_fields(config)
        paths = images_of(config)
        from vlmbench.cell.own_images import predict_images, prepare_images

        said = predict_images(prepare_images(config, paths))
        print(json.dumps(said, indent=1, ensure_ascii=False) if config.json else "\n\n".join(map(told, said)))
    return 0


def images_of(config: schema.PredictConfig) -> list[str]:
    """Return the files that are asked about, each once.

    Raises:
        ConfigError: They are neither a file nor a list of files.
    """
    given = [config.image] if isinstance(config.image, str) else config.image
    if not isinstance(given, list) or not given or not all(isinstance(path, str) and path for path in given):
        raise ConfigError(f"image={config.image!r} is neither a file nor a list of files, as in image=[a.png,b.dcm].")
    return list(dict.fromkeys(given))


def told(said: Mapping[str, Any]) -> str:
    """Return what was predicted of one image as text."""
    if "scores" in said:
        return "\n".join([said["image"], *(f"  {score:8.4f}  {label}" for label, score in said["scores"].items())])
    lines = [said["image"], f"  {said['question']}", f"  {said['answer'] or '(no answer)'}"]
    for option, value in said.get("options", {}).items():
        lines.append(f"  {value['share']:8.4f}  {option}  (log-likelihood {value['log_likelihood']:.3f})")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
