"""The standard single-graph MNN-LLM directory, and MNN's own engine to run it."""

from __future__ import annotations

from pocketglm.export.mnn_llm.directory import MnnLlmExport, export_mnn_llm
from pocketglm.export.mnn_llm.runner import MnnLlm

__all__ = ["MnnLlm", "MnnLlmExport", "export_mnn_llm"]
