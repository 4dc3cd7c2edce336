"""What Prometheus reads at /metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from omniqa.pipeline.answer import Answer

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "omniqa_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.turn_s = Histogram(
            "omniqa_turn_seconds", "From a turn's begin to its end.", buckets=_SECONDS, registry=self.registry
        )
        self.first_token_s = Histogram(
            "omniqa_first_token_seconds", "From a turn's begin to the first token, encoding included.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.stage_s = Counter("omniqa_stage_seconds", "Seconds by stage.", ["stage"], registry=self.registry)
        self.tokens = Counter("omniqa_tokens", "Tokens by kind.", ["kind"], registry=self.registry)
        self.cancelled = Counter("omniqa_cancelled", "Turns whose client went away.", registry=self.registry)

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Report also what `read` gives at the time."""
        Gauge(name, meaning, registry=self.registry).set_function(read)

    def count(self, answer: Answer) -> None:
        """Add an answer."""
        stats = answer.stats
        for stage, seconds in stats.timing_s.items():
            if stage not in ("total", "time_to_first_token", "overlapped"):
                self.stage_s.labels(stage).inc(seconds)
        self.first_token_s.observe(stats.timing_s["time_to_first_token"])
        for kind, count in vars(stats.tokens).items():
            self.tokens.labels(kind).inc(count)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
