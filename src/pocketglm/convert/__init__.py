"""The converter: checkpoints in, packages out."""

from pocketglm.convert.pipeline import ConversionProgress, convert
from pocketglm.convert.settings import ConvertSettings

__all__ = ["ConversionProgress", "ConvertSettings", "convert"]
