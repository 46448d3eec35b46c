"""Exposure of a model to a domain, derived from what both declare, and the words in which they declare it."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from functools import lru_cache

log = logging.getLogger(__name__)

UNDISCLOSED = "undisclosed"
#: What a domain says that does not name its modality, or mixes several without naming them.
UNNAMED = ("unknown", "mixture")
#: The words of the project's models and domains. A user's own word is taken too, and fits only itself.
MODALITIES: dict[str, str] = {
    "radiograph": "projection X-ray: chest, bone, dental, mammography",
    "angiography": "X-ray or other images of vessels filled with contrast",
    "ct": "computed tomography, slices or volumes",
    "mri": "magnetic resonance imaging, slices or volumes",
    "pet": "positron emission tomography, and its fusion with CT",
    "ultrasound": "sonography, echocardiography",
    "histology": "stained tissue sections: patches and whole slides",
    "pathology": "pathology as in textbooks and articles: histology, cytology and gross specimens, mixed",
    "microscopy": "cells under the microscope, not in stained sections: blood smears, cultures",
    "dermoscopy": "skin through a dermatoscope",
    "dermatology": "skin as a camera sees it",
    "fundus": "colour photographs of the retina",
    "slo": "scanning laser ophthalmoscopy of the retina, in grey",
    "oct": "optical coherence tomography of the retina, B-scans",
    "rnflt": "maps of the thickness of the retinal nerve fibre layer, computed from OCT",
    "endoscopy": "cameras inside the body: gastroscopy, colonoscopy, laparoscopy",
    "natural": "everyday photographs",
}
_SYNONYMS = {
    **dict.fromkeys(("x-ray", "xray", "x-rays", "cxr", "chest x-ray", "dx", "mammography"), "radiograph"),
    **dict.fromkeys(("cat", "computed tomography"), "ct"),
    **dict.fromkeys(("mr", "magnetic resonance", "mr imaging"), "mri"),
    **dict.fromkeys(("us", "sonography", "echocardiography"), "ultrasound"),
    **dict.fromkeys(("histopathology", "h&e", "he", "wsi"), "histology"),
    **dict.fromkeys(("dermatoscopy", "skin lesion"), "dermoscopy"),
    **dict.fromkeys(("cfp", "fundus photography", "colour fundus", "color fundus", "retina"), "fundus"),
    **dict.fromkeys(("slo fundus", "slo_fundus", "scanning laser ophthalmoscopy"), "slo"),
    **dict.fromkeys(("colonoscopy", "gastroscopy"), "endoscopy"),
}


def exposure(role: str, pretraining_modalities: Sequence[str], modality: str, declared: str = "auto") -> str:
    """Tell whether a model's pre-training covered a domain's imaging modality.

    Baselines, which have learned nothing, are `ood` everywhere. Generalists are `ood` on every medical modality, as in
    the study, unless their owner does not say what they saw (`undisclosed`): then they are `unknown`. So is a
    specialist whose pre-training modalities are not declared, and every specialist on a domain whose modality nobody
    has named: silence is not evidence of absence.

    A domain that mixes modalities names them all, joined by "+". It is `id` where the model declares each of them and
    `ood` where it declares none. Where it declares some, one result over all images is evidence of neither, and
    calling it either would move the gap between the two that a report is about: it is `unknown`.

    Args:
        role: `generalist`, `specialist` or `baseline`.
        pretraining_modalities: As the model declares them.
        modality: The domain's, in any case; `unknown` where its configuration does not say.
        declared: The domain's own declaration; `auto` for none.

    Returns:
        `id`, `ood` or `unknown`.
    """
    seen = set(map(_plain, pretraining_modalities))
    hidden = UNDISCLOSED in seen
    if role == "baseline" or (role == "generalist" and not hidden):
        return "ood"
    if declared != "auto":
        return declared
    named = parts(modality)
    if hidden or not seen or not named or set(named) & set(UNNAMED):
        return "unknown"
    covered = {part in seen for part in named}
    return "unknown" if len(covered) > 1 else "id" if covered == {True} else "ood"


def parts(modality: str) -> tuple[str, ...]:
    """Return the modalities that a domain's text names, which are joined by "+", in lower case."""
    return tuple(part for text in modality.split("+") if (part := _plain(text)))


def nearest_word(word: str) -> str:
    """Return the word of `MODALITIES` that another one is probably meant as, "" where it is one or is near none."""
    plain = _plain(word)
    if plain in MODALITIES or plain in (UNDISCLOSED, *UNNAMED):
        return ""
    near = difflib.get_close_matches(plain, [*_SYNONYMS, *MODALITIES], n=1, cutoff=0.8)
    return _SYNONYMS.get(near[0], near[0]) if near else ""


def _plain(word: str) -> str:
    """Return a modality as it is compared."""
    return word.strip().lower()


@lru_cache(maxsize=1024)  # a grid checks the same words in each of its cells
def hint_at(key: str, word: str) -> None:
    """Log that a word is nearly one of `MODALITIES`: as it stands it fits no model or domain of the project.

    Args:
        key: Where it was given, for the message.
        word: One modality.
    """
    if near := nearest_word(word):
        log.warning("%s: %r fits no model or domain that says %r; write %r if you mean it.", key, word, near, near)
