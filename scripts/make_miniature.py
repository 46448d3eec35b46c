"""Write a miniature of a public dataset in its official on-disk layout: synthetic images, real file names and columns.

python scripts/make_miniature.py chexpert --out data/chexpert
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

#: Domain to the module below `scripts` and its function, which takes the folder that `domain.root` will name.
MAKERS: dict[str, str] = {
    "camelyon17": "miniatures.camelyon17:make",
    "chexpert": "miniatures.chexpert:make",
    "pathmnist": "miniatures.medmnist:pathmnist",
    "chestmnist": "miniatures.medmnist:chestmnist",
    "dermamnist": "miniatures.medmnist:dermamnist",
    "octmnist": "miniatures.medmnist:octmnist",
    "pneumoniamnist": "miniatures.medmnist:pneumoniamnist",
    "retinamnist": "miniatures.medmnist:retinamnist",
    "breastmnist": "miniatures.medmnist:breastmnist",
    "bloodmnist": "miniatures.medmnist:bloodmnist",
    "tissuemnist": "miniatures.medmnist:tissuemnist",
    "organamnist": "miniatures.medmnist:organamnist",
    "organcmnist": "miniatures.medmnist:organcmnist",
    "organsmnist": "miniatures.medmnist:organsmnist",
    "gf3300": "miniatures.harvard:gf3300",
    "fairvlmed": "miniatures.harvard:fairvlmed",
    "drishti": "miniatures.drishti:make",
    "kermany": "miniatures.kermany:make",
    "ham10000": "miniatures.ham10000:make",
    "papila": "miniatures.papila:make",
    "omnimedvqa": "miniatures.omnimedvqa:make",
    "pathvqa": "miniatures.hub_vqa:make_path_vqa",
    "pmc_oa": "miniatures.captions:make_pmc_oa",
    "pmc_vqa": "miniatures.pmc_vqa:make",
    "roco": "miniatures.captions:make_roco",
    "slake": "miniatures.slake:make",
    "vqa_rad": "miniatures.hub_vqa:make_vqa_rad",
    "fairvlmed_vqa": "miniatures.fairvlmed_vqa:make",
}


def make(name: str, out: Path, seed: int = 0) -> Path:
    """Write the miniature of one domain into `out` and return it.

    Raises:
        KeyError: There is no maker of that name.
    """
    module, _, function = MAKERS[name].partition(":")
    out.mkdir(parents=True, exist_ok=True)
    getattr(importlib.import_module(module), function)(out, seed)
    return out


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(MAKERS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(make(asked.name, asked.out, asked.seed))


if __name__ == "__main__":
    main()
