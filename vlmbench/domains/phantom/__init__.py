"""Phantom worlds: procedural images of imaging modalities, with findings, patients, captions and questions.

`build.build_phantom` makes a `Domain`; nothing is imported here, so that naming the package costs nothing.
"""
