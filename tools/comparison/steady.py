"""A long job under the eye: does memory stay flat, and does nothing happen that should not in the steady state?

  tools/soak steady [--messages N]

timecop hammer sends 10^7 messages (unless told otherwise) over 100 connections with PIPELINING into timecop sink, each pinned to a core. The resident
memory of both is read twice a second. The run fails when the memory of either has grown from its first tenth to its end, when a
message was not accepted, or when what the generator counts of itself is not zero: receive buffers that were exhausted
(ENOBUFS), writes that the kernel did not take whole, receives that had to be armed again, and deltas that control was too slow to take. Exit status: 0 steady, 1 not.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

from .apart import resident
from .process import REPOSITORY, Failed, free_port
from .programs import Bench, timecop, timecop_sink
from .run import Load

MESSAGES = 10_000_000
SAMPLE_EVERY_S = 0.5
# One row a second of the report's series, and what the allocator rounds up to.
GROWTH_MOST = 0.02
GROWTH_BYTES_MOST = 1 << 20
ZERO = ("buffers_exhausted", "short_writes", "rearms", "deltas_held")


class Memory:
    """The resident memory of one process in the course of a run."""

    def __init__(self, process):
        self.process, self.samples = process, []

    def sample(self):
        try:
            self.samples.append(resident(self.process))
        except (OSError, Failed):
            pass  # it has just ended

    @property
    def first(self):
        """What it has when the first tenth is over, in which buffers and tables come to their sizes."""
        return self.samples[len(self.samples) // 10]

    @property
    def grows(self):
        return self.samples[-1] > self.first * (1 + GROWTH_MOST) + GROWTH_BYTES_MOST

    def line(self):
        figures = {"first": self.first, "last": self.samples[-1], "peak": max(self.samples)}
        said = ", ".join(f"{name} {octets / 1e6:.2f} MB" for name, octets in figures.items())
        return f"{self.process.name:16} {said}, {len(self.samples)} samples: {'GROWS' if self.grows else 'flat'}"


def watch(bench, load):
    """Runs the job; gives the memory of both sides and the generator's report."""
    port = free_port()
    served = timecop_sink(bench, load, port).process
    try:
        hammer = timecop("auto")(bench, load, port).process
        try:
            both = Memory(hammer), Memory(served)
            while hammer.poll() is None:
                for memory in both:
                    memory.sample()
                time.sleep(SAMPLE_EVERY_S)
            if hammer.ended.status != 0:
                raise Failed(f"hammer ended with {hammer.ended.status}: {hammer.said()}")
            return both, json.loads((bench.dir / "hammer.json").read_text())
        finally:
            hammer.kill()
    finally:
        served.kill()


def main():
    parser = argparse.ArgumentParser(prog="tools/soak steady", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="default %(default)s")
    parser.add_argument("--binary", type=pathlib.Path, default=REPOSITORY / "target/release/timecop", help="default %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="timecop-steady-") as dir:
        bench = Bench(options.binary.resolve(), pathlib.Path(dir))
        try:
            memories, report = watch(bench, Load(messages=options.messages))
        except Failed as failure:
            print(f"steady: {failure}", file=sys.stderr)
            return 1
    if not all(memory.samples for memory in memories):
        print("steady: the run was too short to be looked at: more --messages", file=sys.stderr)
        return 1
    generator, messages = report["generator"], report["messages"]
    print(f"{messages['accepted']:,} of {messages['asked']:,} accepted in {report['elapsed_s']:.1f} s, {report['rate_per_s']:,.0f}/s,"
        f" {generator['cpu_us_per_message']:.2f} µs a message, load of the machine {os.getloadavg()[0]:.2f}")
    for memory in memories:
        print(memory.line())
    for name in ZERO:
        print(f"{name:18} {generator[name]}")
    good = not any(memory.grows for memory in memories) and not any(generator[name] for name in ZERO)
    return 0 if good and messages["accepted"] == messages["asked"] else 1


if __name__ == "__main__":
    sys.exit(main())
