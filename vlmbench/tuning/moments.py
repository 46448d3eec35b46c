"""What all linear probes on the same rows share: means, and the axes along which the features vary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """What all probes on the same rows share.

    Attributes:
        features: (N, F).
        mean: Of the features, (F,).
        sums: Features summed over each output's rows, divided by N, (R, F): the part of the gradient that is constant.
        shares: Share of the rows in each output, (R,).
        variances: Of the features along `axes`, (K,).
        axes: Principal axes along which the features vary, (F, K). Every optimum lies in their span.
        reach: Largest root mean square of a feature.
    """

    features: Tensor
    mean: Tensor
    sums: Tensor
    shares: Tensor
    variances: Tensor
    axes: Tensor
    reach: float

    @classmethod
    def of(cls, features: Tensor, wanted: Tensor) -> Moments:
        """Gather them from features (N, F) and what each output should be for each row, (N, R)."""
        rows, width = features.shape
        # In blocks: a mean in float64 of the whole would first make a copy of it.
        mean = torch.zeros(width, dtype=torch.float64, device=features.device)
        for block in features.split(4096):
            mean += block.double().sum(0)
        mean /= rows
        sums = mean.new_zeros(wanted.shape[1], width)
        moments = mean.new_zeros(width, width)
        span = None
        if rows < width:
            span, triangle = torch.linalg.qr((features.double() - mean).T)
            moments = triangle @ triangle.T
        for block, part in zip(features.split(4096), wanted.split(4096), strict=True):
            sums += part.T @ block.double()
            if span is None:
                centred = block.double() - mean
                moments.addmm_(centred.T, centred)
        variances, axes = torch.linalg.eigh(moments / rows)
        # Along the other axes nothing varies but rounding, and no optimum has weights there.
        varies = variances > 1e-14 * variances.amax()
        variances, axes = variances[varies], axes[:, varies] if span is None else span @ axes[:, varies]
        reach = float((axes.square() @ variances + mean.square()).amax().sqrt())
        return cls(features, mean, sums / rows, wanted.mean(0), variances, axes, reach)
