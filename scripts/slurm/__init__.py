"""A real SLURM on one machine, and an example of a run on a cluster without a network."""
