"""``engine.runner.Embedder`` over one llama.cpp context that pools."""

from collections.abc import Sequence

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from innkeeper.backends.llama_cpp.runner import RowBatch
from innkeeper.backends.llama_cpp.tokenizer import LlamaTokenizer
from innkeeper.core import ModelFacts
from innkeeper.engine.runner import Row
from innkeeper.errors import EngineError, InvalidRequestError

POOLING_TYPES = {
    "mean": lib.LLAMA_POOLING_TYPE_MEAN,
    "cls": lib.LLAMA_POOLING_TYPE_CLS,
    "last": lib.LLAMA_POOLING_TYPE_LAST,
    "rank": lib.LLAMA_POOLING_TYPE_RANK,
}
MAX_TEXTS = 16
"""Texts of one batch."""


class LlamaEmbedder:
    """Owns the model and its context; used by one thread, but for ``tokenizer``."""

    def __init__(
        self,
        model: "lib.llama_model_p",
        context: "lib.llama_context_p",
        facts: ModelFacts,
        tokenizer: LlamaTokenizer,
    ) -> None:
        self.facts = facts
        self.tokenizer = tokenizer
        self.num_sequence_ids = int(lib.llama_n_seq_max(context))
        self.max_rows = int(lib.llama_n_ubatch(context))
        is_ranker = facts.pooling == "rank"
        self._width = int(lib.llama_model_n_cls_out(model) if is_ranker else _width(model))
        self._model = model
        self._context = context
        self._memory = lib.llama_get_memory(context)
        self._batch = RowBatch(self.max_rows)

    def embed(self, texts: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        rows = [
            Row(token, position, number, True)
            for number, text in enumerate(texts)
            for position, token in enumerate(text)
        ]
        if self._memory:
            lib.llama_memory_clear(self._memory, True)
        self._batch.fill(rows)
        code = lib.llama_decode(self._context, self._batch.batch)
        if code != 0:
            raise EngineError(f"llama_decode failed with code {code}; the engine's log says why")
        return [self._vector(number) for number in range(len(texts))]

    def pair(self, query: str, document: str) -> list[int]:
        """As llama-server does: by the model's own template, else with its separators."""
        template = lib.llama_model_chat_template(self._model, b"rerank")
        if template:
            text = template.decode("utf-8", "replace")
            text = text.replace("{query}", query).replace("{document}", document)
            return self.tokenizer.encode(text, add_special=True, parse_special=True)
        vocab = lib.llama_model_get_vocab(self._model)
        end = lib.llama_vocab_eos(vocab)
        end = lib.llama_vocab_sep(vocab) if end < 0 else end
        if end < 0:
            raise InvalidRequestError(
                f"{self.facts.name} has no token that separates a query from a document",
                field="model",
            )
        begin = [self.tokenizer.bos_id] if self.tokenizer.adds_bos else []
        ends = [end] if lib.llama_vocab_get_add_eos(vocab) else []
        separator = lib.llama_vocab_sep(vocab)
        between = [separator] if lib.llama_vocab_get_add_sep(vocab) and separator >= 0 else []
        first, second = (
            self.tokenizer.encode(text, add_special=False, parse_special=False)
            for text in (query, document)
        )
        return [*begin, *first, *ends, *between, *second, *ends]

    def _vector(self, number: int) -> NDArray[np.float32]:
        pointer = lib.llama_get_embeddings_seq(self._context, number)
        if not pointer:
            raise EngineError("llama.cpp made no embedding; the engine's log says why")
        return np.ctypeslib.as_array(pointer, (self._width,)).copy()


def _width(model: "lib.llama_model_p") -> int:
    read = getattr(lib, "llama_model_n_embd_out", lib.llama_model_n_embd)
    return int(read(model))
