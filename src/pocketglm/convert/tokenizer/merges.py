"""Byte-pair merges recovered from a ranked vocabulary.

Enters: pieces with their rank (lower merges first), as SentencePiece and tiktoken keep them. Leaves:
merge pairs in order, as `tokenizer.json` keeps them.

One pair a piece is enough, and exact. While the algorithm works towards a piece, nothing outside the
piece takes part in merges inside it, so they happen in the same order as if the piece stood alone;
the pair that forms it last is therefore always the same one, found here by encoding the piece alone
(equal ranks: the leftmost first, as upstream). Pieces that no merging reaches get no pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

Piece = TypeVar("Piece", str, bytes)


def recover_merges(ranks: Mapping[Piece, float]) -> list[tuple[Piece, Piece]]:
    """Merge pairs of all reachable pieces, lowest rank first; equal ranks keep the mapping's order."""
    ordered = sorted((piece for piece in ranks if len(piece) > 1), key=ranks.__getitem__)
    pairs = (last_pair(piece, ranks) for piece in ordered)
    return [pair for pair in pairs if pair is not None and pair[0] in ranks and pair[1] in ranks]


def last_pair(piece: Piece, ranks: Mapping[Piece, float]) -> tuple[Piece, Piece] | None:
    """The two parts whose merge forms `piece` when it is encoded alone, or None if none does."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while len(parts) > 2:
        best, best_rank = -1, float("inf")
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1])
            if rank is not None and rank < best_rank:
                best, best_rank = i, rank
        if best < 0:
            return None
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def merge_steps(text: str, ranks: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Every token that the given merges form on the way when `text` is encoded alone, first to last."""
    parts = list(text)
    while True:
        best, best_rank = -1, len(ranks)
        for i in range(len(parts) - 1):
            rank = ranks.get((parts[i], parts[i + 1]), best_rank)
            if rank < best_rank:
                best, best_rank = i, rank
        if best < 0:
            return
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
        yield parts[best]
