"""Random edits of JSON trees, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NUMBERS = st.integers() | st.floats()


def change_somewhere(data: st.DataObject, tree: Any, numbers: st.SearchStrategy[Any] = NUMBERS) -> None:
    """Replace one value anywhere in a tree that is not empty."""
    values = st.none() | st.booleans() | numbers | st.text(max_size=5) | st.just([]) | st.just({})
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        node[key] = data.draw(values)
        return
