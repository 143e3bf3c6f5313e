"""Counts and times for Prometheus.

Enters: what endpoints report. Leaves: the text of `/metrics`, in a registry of this server's own.
"""

from __future__ import annotations

from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pocketglm.generate.memory_budget import resident_bytes
from pocketglm.generate.stream import Statistics
from pocketglm.serve.async_model import AsyncModel

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """`answered` after every answer, `responded` after every response."""

    def __init__(self, engine: AsyncModel) -> None:
        self.registry = CollectorRegistry()
        self._responses = Counter(
            "pocketglm_http_responses", "Responses.", ("endpoint", "status"), registry=self.registry
        )
        self._answers = Counter("pocketglm_answers", "Answers.", ("finish_reason",), registry=self.registry)
        names = {
            "prompt": "Tokens of prompts.",
            "reused": "Tokens of prompts found in the prefix cache.",
            "generated": "Tokens of answers.",
        }
        self._tokens = {
            name: Counter(f"pocketglm_{name}_tokens", text, registry=self.registry)
            for name, text in names.items()
        }
        self._first = Histogram(
            "pocketglm_time_to_first_token_seconds",
            "Seconds from the request to the first token.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._each = Histogram(
            "pocketglm_time_per_token_seconds",
            "Seconds per token after the first, a mean for each answer.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self.registry.register(_LoadCollector(engine))

    def responded(self, endpoint: str, status: int) -> None:
        self._responses.labels(endpoint, str(status)).inc()

    def answered(self, statistics: Statistics, waited_s: float, finish_reason: str) -> None:
        """Count one answer, finished or given up."""
        self._answers.labels(finish_reason).inc()
        self._tokens["prompt"].inc(statistics.prompt_tokens)
        self._tokens["reused"].inc(statistics.reused_tokens)
        self._tokens["generated"].inc(statistics.generated_tokens)
        if statistics.generated_tokens:
            self._first.observe(waited_s + statistics.prefill_s)
        if statistics.generated_tokens > 1 and statistics.decode_s > 0:
            self._each.observe(statistics.decode_s / (statistics.generated_tokens - 1))

    def text(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)


class _LoadCollector(Collector):
    """Reads the scheduler's state when it is asked for."""

    def __init__(self, engine: AsyncModel) -> None:
        self._engine = engine

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        load = self._engine.load_now
        gauges = {
            "running": ("Answers in the batch.", load.running),
            "waiting": ("Answers in the queue.", load.waiting),
            "cached_tokens": ("Positions in KV caches, kept prefixes included.", load.cached_tokens),
            "cached_tokens_limit": ("Positions KV caches may hold.", load.most_cached_tokens),
            "resident_bytes": ("Memory of the process.", resident_bytes()),
        }
        counters = {
            "steps": ("Passes over the weights.", load.steps),
            "preemptions": ("Answers sent back to the queue for lack of cache.", load.preemptions),
        }
        return [
            self._places(),
            *(GaugeMetricFamily(f"pocketglm_{name}", *both) for name, both in gauges.items()),
            *(CounterMetricFamily(f"pocketglm_{name}", *both) for name, both in counters.items()),
        ]

    def _places(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "pocketglm_blocks", "Blocks of the model by where they are.", labels=("engine", "place")
        )
        for labels, count in Counts(self._engine.model.places()).items():
            family.add_metric(labels, count)
        return family
