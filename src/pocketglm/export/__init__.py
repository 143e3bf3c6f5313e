"""From a package to what other programs load: MNN graphs, MNN-LLM directories, archives."""
