"""LightningModules: one training step and one prediction step each, for both families."""
