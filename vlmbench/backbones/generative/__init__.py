"""Vision tower, connector and language model: the LLaVA family."""
