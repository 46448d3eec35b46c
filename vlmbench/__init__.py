"""vlmbench: tune a common vision-language model, or take a medical one? One grid answers."""

__version__ = "0.1.0"
