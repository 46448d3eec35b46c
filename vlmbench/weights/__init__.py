"""Where checkpoints come from: located, fetched, locked, and named by their content."""
