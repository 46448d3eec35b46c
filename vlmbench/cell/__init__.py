"""One cell from configuration to record, and many of them: where the parts of the other packages are put together."""
