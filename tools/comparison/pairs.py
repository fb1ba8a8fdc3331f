"""A B A B: which pairs count, their ratios, and what a bar says of them."""

import dataclasses
import statistics

from .run import ALONE_LEAST, Load, run

BUSY_LEAST = 0.95
# Pairs are run until enough of them count, but no more than this many times as many.
TRIES = 2
LABELS = {
    "generator_us": "generator CPU",
    "target_us": "target CPU",
    "sum_us": "sum of both",
    "per_s": "messages/s",
    "bytes_per_s": "octets/s",
}


@dataclasses.dataclass(frozen=True)
class Side:
    """What runs on one side of a comparison."""

    label: str
    generator: object
    target: object
    # Where it is asked for something else than the other side.
    load: Load | None = None


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A work of pairs of runs. Its value is the ratio A/B of a figure."""

    name: str
    about: str
    a: Side
    b: Side
    # Further sides that are run beside each pair; None of it decides which pairs count.
    beside: tuple = ()
    figure: str = "generator_us"
    bar: float | None = None
    # The bar is to be reached from above.
    at_least: bool = False
    # Both generators have to be busy; otherwise it is enough that either side was.
    generator_bound: bool = False
    # Both sides wait for the network most of the time, which is what is compared: every pair counts.
    waiting: bool = False
    load: Load = Load()
    # Programs beside timecop.
    needs: tuple = ("/usr/sbin/smtp-source",)
    # No more pairs than this, where they take long.
    pairs_most: int | None = None

    def counts(self, runs):
        if self.waiting:
            return True
        if self.generator_bound:
            return all(runs[side].generator_busy >= BUSY_LEAST for side in "AB")
        return all(runs[side].undisturbed for side in "AB")

    @property
    def why_not(self):
        if self.generator_bound:
            return f"a generator was less than {BUSY_LEAST:.0%} busy"
        return f"neither side was {ALONE_LEAST:.0%} busy, so that something else was"

    def measure(self, bench, options):
        load = options.load_of(self.load)
        wanted = min(options.pairs, self.pairs_most or options.pairs)
        sides = {"A": self.a, "B": self.b} | {chr(ord("C") + at): side for at, side in enumerate(self.beside)}
        print("  " + ", ".join(f"{letter} = {side.label}" for letter, side in sides.items()))
        print(f"  {load.messages:,} messages of {load.size:,} octets, {load.connections:,} connections")
        print(f"  {'pair':4} {'':2} {'gen µs':>8} {'tgt µs':>8} {'msg/s':>9} {'MB/s':>7} {'gen busy':>8} {'tgt busy':>8}  bottleneck")
        found = []
        for number in range(1, TRIES * wanted + 1):
            if sum(map(self.counts, found)) == wanted:
                break
            runs = {}
            for letter, side in sides.items():
                each = options.load_of(side.load) if side.load else load
                runs[letter] = one = run(bench, side.label, side.generator, side.target, each)
                print(
                    f"  {number:4} {letter:2} {one.generator_us:8.2f} {one.target_us:8.2f} {one.per_s:9.0f} {one.bytes_per_s / 1e6:7.0f}"
                    f" {one.generator_busy:8.0%} {one.target_busy:8.0%}  {one.bottleneck}",
                    flush=True,
                )
            found.append(runs)
        return self.judge(found, wanted)

    def judge(self, found, wanted):
        """Prints the ratios, on the pairs that count; gives all that is known."""
        counting = [runs for runs in found if self.counts(runs)]
        left_out = [str(number) for number, runs in enumerate(found, 1) if not self.counts(runs)]
        if left_out:
            print(f"  left out, {self.why_not}: pair {', '.join(left_out)}")
        ratios = {figure: spread(ratios_of(counting, figure)) for figure in LABELS}
        for figure, label in LABELS.items():
            if figure != "bytes_per_s" or self.figure == figure:
                print(f"  A/B {label:14} {said(ratios[figure])}")
        medians = {side: statistics.median(getattr(runs[side], self.figure) for runs in found) for side in found[0]}
        print(f"  median {LABELS[self.figure]} (all pairs): " + ", ".join(f"{side} {value:,.2f}" for side, value in medians.items()))
        decided = len(counting) >= wanted
        result = {
            "pairs": [{side: one.as_dict() for side, one in runs.items()} | {"counts": self.counts(runs)} for runs in found],
            "ratios": ratios,
            "medians": medians,
            # For looking only: what the ratio is when pairs count that do not.
            "of_all": spread(ratios_of(found, self.figure)),
        }
        return result | verdict(ratios[self.figure], f"A/B {LABELS[self.figure]}", self.bar, self.at_least, decided)


def verdict(value, figure, bar, at_least=False, decided=True):
    """What a bar says of a value with its spread; `reached` is None where there is no bar, or too little to go by."""
    reached = None
    if bar is not None and value is not None and decided:
        reached = value["median"] >= bar if at_least else value["median"] <= bar
    return {"figure": figure, "value": value, "bar": bar, "at_least": at_least, "reached": reached}


def ratios_of(found, figure):
    return [getattr(runs["A"], figure) / getattr(runs["B"], figure) for runs in found]


def spread(values):
    """Median with least and greatest."""
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "count": len(values)}


def said(value, form=".3f"):
    return "none" if value is None else f"{value['median']:{form}} ({value['min']:{form}} to {value['max']:{form}})"



