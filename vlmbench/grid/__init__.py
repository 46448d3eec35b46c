"""Many cells: planned, launched on this machine or on SLURM, watched, and gone on with."""
