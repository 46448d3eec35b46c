"""vlmbench: tune a common vision-language model, or take a medical one? One grid answers."""

from vlmbench.deferred import defer

__version__ = "0.1.0"

defer()  # before anything imports Lightning
