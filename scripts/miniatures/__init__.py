"""Miniatures of public datasets, one module a layout."""
