"""Rates corrected for a judge's errors, from samples that people labelled too.

`rogan_gladen` carries the judge's error rates over from labels that came from elsewhere; `ppi` uses labels
of a random part of the run itself and assumes nothing about the judge. Both give the rate people would
have found on the whole run, with the doubt that the labels leave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from vlmend.core.metrics.stats import Interval, check_lengths, check_level, share_interval
from vlmend.errors import BadParameter

__all__ = ["ppi", "rogan_gladen"]

Array = npt.NDArray[np.float64]
PSEUDO = 2
"""Half of them right, half wrong: added to each class of the labels by Lang and Reiczigel."""


def rogan_gladen(
    judged: Sequence[bool], judged_labelled: Sequence[bool], human_labelled: Sequence[bool], *, level: float = 0.95
) -> Interval:
    """True rate from the judge's rate and its sensitivity and specificity, with Lang and Reiczigel's interval.

    value = (rate + specificity - 1) / (sensitivity + specificity - 1), cut to 0 and 1. The doubt about the
    judge's rate, sensitivity and specificity is carried into the interval; the delta method was measured
    too and covers less where labels are few.

    Valid where the judge errs as often on the run as on the labels, for each true class: labels from the
    same kind of requests and replies. Labels need not be as frequent as in the run, and must be other
    samples than those in `judged`. Not valid for labels chosen by the judge's verdict: then use `ppi` with
    random ones.

    Args:
        judged: The judge's verdict on each sample of the run.
        judged_labelled: Its verdict on each sample that people labelled.
        human_labelled: What people said of these.
        level: Confidence level.

    Returns:
        The rate; NaN throughout without samples, with labels of one class only, or where the judge was no
        better than chance on the labels (sensitivity + specificity <= 1): it then tells nothing.

    Source: Rogan and Gladen, American Journal of Epidemiology 107 (1978), 71-76; Lang and Reiczigel,
        Preventive Veterinary Medicine 113 (2014), 13-22.

    Raises:
        BadParameter: Different lengths, or a level that is none.
    """
    check_lengths(judged_labelled=len(judged_labelled), human_labelled=len(human_labelled))
    check_level(level)
    pairs = list(zip(judged_labelled, human_labelled, strict=True))
    positives = sum(bool(human) for human in human_labelled)
    negatives, n = len(pairs) - positives, len(judged)
    if not (n and positives and negatives):
        return Interval(math.nan, math.nan, math.nan)
    hits = sum(judge and human for judge, human in pairs)
    passes = sum(not judge and not human for judge, human in pairs)
    youden = hits / positives + passes / negatives - 1
    if youden <= 0:
        return Interval(math.nan, math.nan, math.nan)
    value = (sum(map(bool, judged)) / n + passes / negatives - 1) / youden
    z = float(ndtri((1 + level) / 2))
    low, high = _lang_reiczigel(sum(map(bool, judged)), n, hits, positives, passes, negatives, z)
    return Interval(min(max(value, 0.0), 1.0), low, high)


def ppi(
    judged_all: Sequence[float], judged_labelled: Sequence[float], human_labelled: Sequence[float], *,
    level: float = 0.95,
) -> Interval:  # fmt: skip
    """Mean that people would have given to the whole run: prediction-powered, with power tuning (PPI++).

    value = lambda mean(f unlabelled) + mean(y - lambda f labelled), f the judge and y people. Lambda (0 to 1)
    is fitted, so a poor judge is left out by itself, and a biased one is put right whatever its bias.

    The standard error is that of the paper. For scores the interval is value +- t error. For yes/no labels
    it is Wilson's at the effective sample size (`stats.share_interval`): value +- z error was measured and
    covers far less at small rates. Where the labels show no spread: yes/no labels count as so many samples,
    scores get NaN limits.

    Valid where the labelled samples are a random sample of the run; then nothing is assumed about the judge.
    Not valid for labels that people picked, or that were drawn by verdict. Needs some 50 labels; with fewer,
    or hardly any of a class, intervals come out too narrow.

    Args:
        judged_all: The judge's number for each sample of the run, the labelled ones included.
        judged_labelled: Its number for each labelled sample.
        human_labelled: What people said of these.
        level: Confidence level.

    Source: Angelopoulos et al., Science 382 (2023), 669-674; Angelopoulos, Duchi and Zrnic, arXiv 2311.01453.

    Raises:
        BadParameter: Different lengths, more labelled samples than there are, or a level that is none.
    """
    check_lengths(judged_labelled=len(judged_labelled), human_labelled=len(human_labelled))
    check_level(level)
    run, f, y = (np.asarray(x, dtype=np.float64) for x in (judged_all, judged_labelled, human_labelled))
    if len(run) < len(y):
        raise BadParameter(
            f"{len(y)} samples are labelled, but only {len(run)} judged.", "Pass the verdicts of the whole run."
        )
    if len(y) < 2:
        return Interval(math.nan, math.nan, math.nan)
    value, error = _power_tuned(run, f, y)
    if np.isin(y, (0.0, 1.0)).all():
        return share_interval(value, error, least=len(y), most=len(run), df=len(y) - 1, level=level)
    half = float(stdtrit(len(y) - 1, (1 + level) / 2)) * error if error > 0 else math.nan
    return Interval(value, value - half, value + half)


def _lang_reiczigel(
    judged: int, n: int, hits: int, positives: int, passes: int, negatives: int, z: float
) -> tuple[float, float]:
    """Limits from three independent binomial samples, each with pseudo-observations, moved by a shift."""
    total = n + z * z
    rate = (judged + z * z / 2) / total
    positives, negatives = positives + PSEUDO, negatives + PSEUDO
    sensitivity, specificity = (hits + PSEUDO / 2) / positives, (passes + PSEUDO / 2) / negatives
    youden = sensitivity + specificity - 1
    true = (rate + specificity - 1) / youden
    miss = sensitivity * (1 - sensitivity) / positives
    alarm = specificity * (1 - specificity) / negatives
    error = math.sqrt(rate * (1 - rate) / total + miss * true**2 + alarm * (1 - true) ** 2) / youden
    middle = true + 2 * z * z * (true * miss - (1 - true) * alarm)
    return min(max(middle - z * error, 0.0), 1.0), min(max(middle + z * error, 0.0), 1.0)


def _power_tuned(run: Array, f: Array, y: Array) -> tuple[float, float]:
    """The PPI++ estimate and its standard error; the labelled samples are taken out of the run by their sums."""
    n, rest = len(y), len(run) - len(y)
    spread = float(run.var(ddof=1))
    if rest < 2 or spread == 0:
        return float(y.mean()), float(y.std(ddof=1)) / math.sqrt(n)
    tuned = float(np.cov(y, f)[0, 1]) / spread / (1 + n / rest)
    weight = min(max(tuned, 0.0), 1.0)
    mean = float(run.sum() - f.sum()) / rest
    variance = max(float((run**2).sum() - (f**2).sum()) / rest - mean**2, 0.0) * rest / (rest - 1)
    left = y - weight * f
    error = math.sqrt(weight**2 * variance / rest + float(left.var(ddof=1)) / n)
    return weight * mean + float(left.mean()), error
