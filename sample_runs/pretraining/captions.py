"""Captions of generated scenes as tokens, one a word; knows nothing of images or models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.backbones.bundled import CONTEXT_LENGTH, VOCABULARY_SIZE
from engine.data.synthetic.scenes import COLOURS, COUNTS, GROUNDS, KINDS

WORDS: tuple[str, ...] = (*COUNTS, "small", "large", "fine", "coarse", *COLOURS, *KINDS, "on", "a", *GROUNDS, "ground")
END = VOCABULARY_SIZE - 1  # open_clip reads a caption out at its highest token; 0 fills up the rest
_TOKENS = {word: token for token, word in enumerate(WORDS, start=1)}


def tokenise(captions: Sequence[str]) -> Tensor:
    """Tokens of captions `(n, CONTEXT_LENGTH)` int64: a number a word, then `END`, then zeros.

    Raises:
        KeyError: a word that no generated caption has.
    """
    tokens = torch.zeros(len(captions), CONTEXT_LENGTH, dtype=torch.int64)
    for row, caption in zip(tokens, captions, strict=True):
        numbers = [*(_TOKENS[word] for word in caption.split()), END]
        row[: len(numbers)] = torch.tensor(numbers)
    return tokens
