"""Made-up choices whose true accuracy is known, and how often intervals hold it: seeds, pictures and questions vary."""

from statistics import NormalDist

import numpy as np
from vinnow.evaluate.statistics.levels import difference, mean, ratio, spread_of, sums_of

COVERED, DRAWN = ("difference", "accuracy", "ratio"), "difference, bootstrap"
# shares of variance: of what a seed turns over; and (of the rest) of what questions about one picture have in common
TURNED, IN_COMMON = 0.3, 0.3
# points of accuracy that a step of the threshold is worth, where the choices lie
SLOPE = 0.35
# thresholds of the choices: accuracies from 69 % on, two points apart
FIRST, STEP = 0.5, 0.05


def answers_of(choices, seeds, questions, pictures, rng, sd=0.01, shared=0.0, odd=None):
    """Right and wrong answers [seed, question] of each choice. `sd`: of a seed's accuracy; `odd`: that of the last choice.

    `shared`: the share of that variance that a seed does to all choices alike. Every seed turns some answers over besides.
    """
    per = questions // pictures
    common = rng.normal(0, np.sqrt(IN_COMMON), pictures).repeat(per)
    base = (common + rng.normal(0, np.sqrt(1 - IN_COMMON), per * pictures)) * np.sqrt(1 - TURNED)
    of_all, made_up = rng.normal(0, 1, seeds), []
    for number in range(choices):
        own = (odd if odd is not None and number == choices - 1 else sd) / SLOPE
        shift = np.sqrt(shared) * of_all + np.sqrt(1 - shared) * rng.normal(0, 1, seeds)
        heights = base + rng.normal(0, np.sqrt(TURNED), (seeds, len(base)))
        made_up.append((heights < (FIRST + STEP * number + own * shift)[:, None]).astype(float))
    return made_up, np.repeat(np.arange(pictures), per)


def truth_of(number, sd):
    """The accuracy of a choice, over all seeds, pictures and questions."""
    return NormalDist().cdf((FIRST + STEP * number) / np.sqrt(1 + (sd / SLOPE) ** 2))


def cover(choices, seeds, questions, pictures, tables, sd=0.01, shared=0.0, odd=None, draws=0, seed=0):
    """The share of intervals (95 %) that hold the truth, of the last choice: against the first, and alone.

    With `draws`, beside them: a bootstrap that draws S of S seeds and whole pictures.
    """
    rng, held = np.random.default_rng(seed), dict.fromkeys((*COVERED, DRAWN) if draws else COVERED, 0)
    for _ in range(tables):
        made_up, cluster = answers_of(choices, seeds, questions, pictures, rng, sd, shared, odd)
        sums = [sums_of(scores, cluster) for scores in made_up]
        spread = spread_of([s.means_S for s in sums], matched=True)
        last, first = truth_of(choices - 1, sd if odd is None else odd), truth_of(0, sd)
        cases = {
            "difference": (difference(sums[-1], sums[0], spread), sums[-1].mean - sums[0].mean, last - first),
            "accuracy": (mean(sums[-1], spread), sums[-1].mean, last),
            "ratio": (ratio(sums[-1:], sums[:1], spread), sums[-1].mean / sums[0].mean, last / first),
        }
        for name, (sure, estimate, truth) in cases.items():
            told = sure.interval(estimate)
            held[name] += told.low <= truth <= told.high
        if draws:
            low, high = _drawn(sums[-1], sums[0], rng, draws)
            held[DRAWN] += low <= last - first <= high
    return {name: count / tables for name, count in held.items()}


def _drawn(ours, theirs, rng, draws):
    s, clusters = ours.sums_SC.shape
    weights_RC = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    weights_RS = [rng.multinomial(s, np.full(s, 1 / s), size=draws) / s for _ in range(2)]
    rows_R = weights_RC @ ours.sizes_C
    sides = [((weights_RC @ x.sums_SC.T) * w).sum(1) / rows_R for x, w in zip((ours, theirs), weights_RS, strict=True)]
    return np.quantile(sides[0] - sides[1], [0.025, 0.975])
