"""Domains: one dataset of one imaging modality each, with its splits, groups, labels, prompts and questions."""
