"""Dual encoders of the CLIP family."""
