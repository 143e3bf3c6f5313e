"""The manifest that a model would have, for plans without a package.

Enters: a spec and formats. Leaves: a `Manifest` with every size and no hash, of files that need not exist.
"""

from __future__ import annotations

from pocketglm.architecture.spec import ModelSpec
from pocketglm.package.layout import plan_block, plan_head
from pocketglm.package.manifest import FileEntry, Manifest
from pocketglm.quantize.formats import WeightFormat


def unconverted_manifest(spec: ModelSpec, blocks: WeightFormat, head: WeightFormat) -> Manifest:
    """All linear layers of blocks in one format, the head in another."""
    layouts = [plan_block(spec, index, lambda name, shape: blocks) for index in range(spec.num_blocks)]
    layouts.append(plan_head(spec, lambda name, shape: head))
    files = {layout.file: FileEntry(layout.size, "") for layout in layouts}
    return Manifest(spec, "bfloat16", files, {layout.file: layout.entries for layout in layouts})
