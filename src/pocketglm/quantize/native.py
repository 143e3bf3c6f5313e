"""The compiled kernels, or a clear error where they were not built."""

from __future__ import annotations

from pocketglm.errors import PocketGLMError

try:
    from pocketglm.quantize._kernels import (
        compare,
        dequantize,
        first_unrepresentable,
        isa_names,
        quantize,
    )
except ImportError as error:
    raise PocketGLMError(
        f"the native quantize kernels are missing or do not fit these sources ({error})",
        hint="build them: pip install -e . (in the checkout), or install a wheel of PocketGLM",
    ) from error

__all__ = ["compare", "dequantize", "first_unrepresentable", "isa_names", "quantize"]
