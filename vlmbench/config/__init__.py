"""Typed configuration: schemas, their registration with Hydra, and the checks that run before torch is imported."""
