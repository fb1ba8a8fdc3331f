"""What the comparison says of its figures, without running anything: python3 -m unittest discover tools."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOOLS))

from comparison import pairs, programs, works  # noqa: E402
from comparison.run import Load, Run  # noqa: E402


def load_tool(name):
    """A tool as a module; its file has no ending."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(TOOLS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def a_run(generator_us, busy=1.0, messages=1_000):
    cpu_s = generator_us * messages / 1e6
    return Run("run", messages, 1_024, cpu_s / busy, cpu_s, cpu_s / 10, cpu_s / 2)


def of_pairs(**more):
    side = pairs.Side("side", None, None)
    return pairs.Pairs("generator/kept", "", side, side, **more)


class Bars(unittest.TestCase):
    def judged(self, ratios, wanted=3, busy=1.0, **more):
        work = of_pairs(**more)
        return work.judge([{"A": a_run(ratio * 20, busy), "B": a_run(20)} for ratio in ratios], wanted)

    def test_the_median_of_the_pairs_decides(self):
        self.assertIs(self.judged([0.5, 0.57, 0.9], bar=0.58)["reached"], True)
        self.assertIs(self.judged([0.5, 0.59, 0.9], bar=0.58)["reached"], False)

    def test_a_bar_from_below_is_turned_round(self):
        self.assertIs(self.judged([1, 3.1, 4], bar=3.0, at_least=True)["reached"], True)
        self.assertIs(self.judged([1, 2, 4], bar=3.0, at_least=True)["reached"], False)

    def test_too_few_pairs_decide_nothing(self):
        self.assertIsNone(self.judged([0.5, 0.5], bar=0.58)["reached"])

    def test_a_pair_with_an_idle_generator_does_not_count(self):
        result = self.judged([0.5, 0.5, 0.5], busy=0.9, bar=0.58, generator_bound=True)
        self.assertEqual((result["value"], result["reached"]), (None, None))
        self.assertAlmostEqual(result["of_all"]["median"], 0.5)

    def test_where_both_sides_wait_every_pair_counts(self):
        self.assertEqual(self.judged([0.5] * 3, busy=0.1, waiting=True)["value"]["count"], 3)


class Works(unittest.TestCase):
    def test_names_are_unique_and_chosen_by_subject_or_alone(self):
        names = [work.name for work in works.WORKS]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual([work.name for work in works.choose(["sink/kept"])], ["sink/kept"])
        self.assertTrue(all(work.name.startswith("floor/") for work in works.choose(["floor"])))
        self.assertEqual(works.choose([]), works.choose(["all"]))
        with self.assertRaises(KeyError):
            works.choose(["sinks"])

    def test_every_program_that_may_be_missing_says_how_to_get_it(self):
        for work in works.WORKS:
            self.assertLessEqual(set(work.needs), set(programs.INSTALL), work.name)

    def test_a_request_has_the_size_that_was_asked_for(self):
        self.assertEqual(len(programs.form(Load(size=1_024))), 1_024)


class BenchCheck(unittest.TestCase):
    tool = load_tool("bench-check")

    def verdicts(self, *rows):
        return [self.tool.Row("a", *row).verdict(self.tool.MORE_MOST) for row in rows]

    def test_more_than_five_percent_is_slower(self):
        self.assertEqual(self.verdicts((100, 104.9), (100, 105.1), (100, 50)), ["ok", "SLOWER", "ok"])

    def test_what_one_side_has_not_is_not_judged(self):
        self.assertEqual(self.verdicts((None, 10), (10, None)), ["new", "gone"])

    def test_only_slower_ones_fail(self):
        rows = [self.tool.Row("a", 100, 120), self.tool.Row("b", 100, 100), self.tool.Row("c", None, 5)]
        self.assertEqual(self.tool.slower(rows, self.tool.MORE_MOST), ["a"])


if __name__ == "__main__":
    unittest.main()
