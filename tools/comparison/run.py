"""One generator into one target."""

import dataclasses

from .process import READY_WITHIN_S, RUN_WITHIN_S, Failed, free_port

# A run in which neither side was this busy had to share its cores with somebody: its figures say nothing.
ALONE_LEAST = 0.80


@dataclasses.dataclass(frozen=True)
class Load:
    """What a generator is asked for."""

    messages: int = 100_000
    connections: int = 100
    size: int = 1_024


@dataclasses.dataclass
class Started:
    """A program that runs. `count` says how many messages it counted, or None where it counts none."""

    process: object
    count: object = lambda: None
    # It runs for a time, and what it counted is how many there were.
    timed: bool = False


@dataclasses.dataclass
class Run:
    """What a run used. Rates and costs are by the message (request, connection)."""

    name: str
    messages: int
    octets: int
    wall_s: float
    generator_cpu_s: float
    generator_user_s: float
    target_cpu_s: float

    @property
    def generator_us(self):
        return self.generator_cpu_s / self.messages * 1e6

    @property
    def target_us(self):
        return self.target_cpu_s / self.messages * 1e6

    @property
    def sum_us(self):
        return self.generator_us + self.target_us

    @property
    def per_s(self):
        return self.messages / self.wall_s

    @property
    def bytes_per_s(self):
        return self.messages * self.octets / self.wall_s

    @property
    def generator_busy(self):
        return self.generator_cpu_s / self.wall_s

    @property
    def target_busy(self):
        return self.target_cpu_s / self.wall_s

    @property
    def bottleneck(self):
        if not self.undisturbed:
            return "neither"
        return "generator" if self.generator_busy >= self.target_busy else "target"

    @property
    def undisturbed(self):
        return max(self.generator_busy, self.target_busy) >= ALONE_LEAST

    def as_dict(self):
        figures = "generator_us target_us sum_us per_s bytes_per_s generator_busy target_busy bottleneck".split()
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in figures}


def run(bench, name, generator, target, load):
    """Runs `generator` into `target` once, each a function of (bench, load, port) that gives a `Started`."""
    port = free_port()
    served = target(bench, load, port)
    try:
        sent = generator(bench, load, port)
        try:
            ended = sent.process.wait(RUN_WITHIN_S)
        finally:
            sent.process.kill()
        if ended.status != 0:
            raise Failed(f"{name}: {sent.process.name} ended with {ended.status}: {sent.process.said()}")
        served.process.terminate()
        target_ended = served.process.wait(READY_WITHIN_S)
    finally:
        served.process.kill()
    messages = sent.count() if sent.timed else load.messages
    if not messages:
        raise Failed(f"{name}: {sent.process.name} counted nothing: {sent.process.said()}")
    for who in (sent, served):
        count = who.count()
        if count is not None and not sent.timed and count != messages:
            raise Failed(f"{name}: {who.process.name} counted {count} messages of {messages}")
    return Run(name, messages, load.size, ended.wall_s, ended.cpu_s, ended.user_s, target_ended.cpu_s)
