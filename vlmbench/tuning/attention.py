"""Multi-head attention with four Linear layers in place of `nn.MultiheadAttention`, for adapters.

`nn.MultiheadAttention` keeps query, key and value in one bare parameter and never calls its output layer. The wrapper
that PEFT (0.21) has for it merges the update into the weights before each call and takes it out after: the output
layer's update enters twice, in half precision the frozen weights drift from call to call, and dropout is ignored. With
Linear layers of their own the projections take the same updates, of the same size, as those of transformers' CLIP.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Attention over (B, T, E) that computes what the module it is made from does.

    Args:
        fused: Batch first, one width for query, key and value, no dropout.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = fused.num_heads
        parts = zip(fused.in_proj_weight.chunk(3), fused.in_proj_bias.chunk(3), strict=True)
        self.q_proj, self.k_proj, self.v_proj = (_linear(weight, bias) for weight, bias in parts)
        self.out_proj = _linear(fused.out_proj.weight, fused.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Return the attended values (B, T, E), and no weights.

        Queries are (B, T, E), keys and values (B, S, E); `attn_mask` (T, S), or (B * heads, T, S), is added to the
        scores; callers pass `need_weights`, which is not used.
        """
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.heads))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(out.transpose(1, 2).flatten(-2)), None


def unfuse(model: nn.Module) -> None:
    """Replace, in place, the attention of every residual block of open_clip's transformers."""
    for module in list(model.modules()):
        fused = getattr(module, "attn", None)
        if isinstance(fused, nn.MultiheadAttention) and fused.in_proj_weight is not None and fused.batch_first:
            module.attn = Attention(fused)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, device=weight.device, dtype=weight.dtype)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
