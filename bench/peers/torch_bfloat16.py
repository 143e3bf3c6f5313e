"""transformers' Llama on PyTorch in bfloat16, with its own KV cache and fused attention."""

from __future__ import annotations

from typing import Any

from peers.task import Task


def version() -> str:
    import torch
    import transformers

    return f"{transformers.__version__}, torch {torch.__version__}"


class Transformers:
    """Caches are transformers' own; sequences of one batch have equal lengths, so need no padding."""

    most_sequences = 64

    def __init__(self, task: Task) -> None:
        import torch
        import transformers

        torch.set_num_threads(task.threads)
        self._torch = torch
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.bfloat16)
        self._model = model.eval()
        self._cache: Any = None

    def prefill(self, tokens: list[int]) -> list[float]:
        self._cache = None
        return [float(x) for x in self._run([tokens])[0, :1024]]

    def decode(self, token: int) -> int:
        return self.decode_sequences([token])[0]

    def start_sequences(self, prompts: list[list[int]]) -> None:
        self._cache = None
        self._run(prompts)

    def decode_sequences(self, tokens: list[int]) -> list[int]:
        return [int(i) for i in self._run([[token] for token in tokens]).argmax(dim=1)]

    def _run(self, rows: list[list[int]]) -> Any:
        """Logits of each sequence's last token, [sequences, vocabulary]."""
        with self._torch.inference_mode():
            ids = self._torch.tensor(rows)
            answer = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            self._cache = answer.past_key_values
            return answer.logits[:, -1].float()


def load(task: Task) -> Transformers:
    return Transformers(task)
