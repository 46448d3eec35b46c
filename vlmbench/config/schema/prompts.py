"""How many ways of asking are tried before a model is evaluated off the shelf."""

from __future__ import annotations

from dataclasses import dataclass

from vlmbench.config.schema.fields import number


@dataclass
class PromptsConfig:
    """Candidate prompts, of which each model's validation split chooses one (Jeong et al., EMNLP 2024, 2411.04118).

    They are drawn from the grammar in `assets/prompts.yaml` and are the same for every model on a domain. For
    `finetune=zero_shot`: what trains learns its prompt's answers. A generative model answers `examples` questions for
    each candidate, a dual encoder only encodes their texts.

    Attributes:
        candidates: Prompts that are tried, the configured one among them; 0 and 1 are that one alone.
        examples: Most validation examples that they are tried on, drawn by the seed, the same for all.
        in_context: VQA: questions with answers of the train split that some candidates show before they ask. Their
            images are not shown: most models take one image, and all are to be asked alike.
        seed: Of the candidates and of the examples.
    """

    candidates: int = number(1, 0, 64)
    examples: int = number(200, 2)
    in_context: int = number(2, 0, 16)
    seed: int = number(0, 0, 2**32 - 1)

    def __post_init__(self) -> None:
        # What decides nothing makes no other cell.
        if self.candidates <= 1:
            self.candidates, self.examples, self.in_context, self.seed = 1, 200, 2, 0
