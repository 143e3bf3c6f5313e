"""The kernels under the names of `operations.Functions`."""

from pocketglm.engine.torch.kernels.elementwise import activation, norm, residual_norm
from pocketglm.engine.torch.kernels.linear import linear

__all__ = ["activation", "linear", "norm", "residual_norm"]
