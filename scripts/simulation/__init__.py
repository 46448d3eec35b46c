"""Simulated studies in which the truth is known."""
