"""Cells share what a frozen vision tower gives: the same results as with the live tower, and no image decoded twice."""

import json

import pytest

from vlmbench.cell.seen import VISION

# Several questions an image, all about images in files.
LORA = ["model=tiny_llava", "finetune=lora", "finetune.scope=ML", "trainer.precision=32-true"]
