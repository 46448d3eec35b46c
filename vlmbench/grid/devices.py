"""What a cell runs on, and how fast that is: stated, so that an estimate can be argued with."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from vlmbench.config import schema
from vlmbench.config.faults import ConfigError, unknown
from vlmbench.weights.source import PACKAGE

#: Share of a GPU's peak that training reaches. Chowdhery et al., 2022 (PaLM, arXiv 2204.02311, table 3) list 0.21 to
#: 0.46 for language models of many GPUs; small batches and towers lie at the lower end.
ATTAINED = 0.3
#: FLOP/s of one core of a CPU in float32 that the shipped models reach in training. An assumption: a quarter of the
#: 1.2e11 that products of 1024 x 1024 matrices were measured at on one core of an AMD EPYC server.
CORE = 3e10


@dataclass(frozen=True)
class Device:
    """One device, or all cores that a cell has of a CPU.

    Attributes:
        name: For people.
        kind: `gpu` or `cpu`.
        half: FLOP/s reached in bfloat16 or float16.
        single: FLOP/s reached in float32; torch does not use TF32 unless told to.
        bandwidth: Bytes/s between memory and processor: what writing text one token at a time is bound by.
        step: Seconds of a training or prediction step that no arithmetic explains: Python, kernel launches, optimiser.
        start: Seconds to import, load and set up a cell beside reading its weights.
    """

    name: str
    kind: str
    half: float
    single: float
    bandwidth: float
    step: float
    start: float

    def flops(self, precision: str) -> float:
        """Return the FLOP/s reached in the arithmetic that `trainer.precision` names."""
        return self.single if precision == "32-true" else self.half


def _gpu(name: str, half: float, single: float, bandwidth: float) -> Device:
    return Device(name, "gpu", half * ATTAINED, single * ATTAINED, bandwidth, step=0.03, start=20.0)


#: `step` and `start` are assumptions of their order of magnitude, as is all of the CPU; finished cells replace them.
#: Dense peaks (no sparsity) and bandwidths as in NVIDIA's data sheets of the A100 80GB SXM, H100 SXM and L40S.
DEVICES = {
    "a100": _gpu("A100", 312e12, 19.5e12, 2.0e12),
    "h100": _gpu("H100", 989e12, 67e12, 3.35e12),
    "l40s": _gpu("L40S", 362e12, 91.6e12, 0.864e12),
    # bfloat16 is emulated by most CPUs.
    "cpu": Device("CPU", "cpu", CORE, CORE, 1e10, step=0.012, start=4.0),
}


def named(name: str, tflops: float | None = None) -> Device:
    """Return a device of the table, or of a speed of one's own.

    Args:
        name: A key of `DEVICES`.
        tflops: 10^12 FLOP/s that it really reaches, in place of the share of its peak.

    Raises:
        ConfigError: There is none of that name, or the speed is not above 0.
    """
    if name not in DEVICES:
        raise ConfigError(unknown("--device", name, DEVICES))
    if tflops is None:
        return DEVICES[name]
    if not 0 < tflops < float("inf"):
        raise ConfigError(f"--tflops={tflops:g} is no speed: give 10^12 operations a second, for example 90.")
    return replace(DEVICES[name], half=tflops * 1e12, single=tflops * 1e12)


def device_of(config: schema.CellConfig, chosen: Device | None = None) -> Device:
    """Return what a cell is taken to run on.

    That is what its trainer says. Where that leaves it open it is a GPU; but for the shipped models on a machine that
    has none, for they are made to run without.

    Args:
        config: The cell.
        chosen: What the user named, for what its trainer leaves open.
    """
    accelerator = config.trainer.accelerator
    if config.model.kind == "hosted" or accelerator == "cpu":
        return DEVICES["cpu"]
    if chosen is not None:
        return chosen
    shipped = config.model.source.startswith(PACKAGE)
    return DEVICES["cpu"] if accelerator == "auto" and shipped and not has_gpu() else DEVICES["a100"]


def has_gpu() -> bool:
    """Tell whether this machine has an NVIDIA GPU that may be seen, without importing torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "?") in ("", "-1")
    return not hidden and Path("/dev/nvidiactl").exists()
