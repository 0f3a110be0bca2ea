"""Does a picture show anything that can be judged? Asked before the model, of every picture, by whoever has one.

A model answers whatever it is shown: with the lamp at 1 % the scratch model found nothing on 28 of 28 scratched parts.
So a picture that shows nothing, or nothing like what the model was made for, is not given to it.

With a bundle's statistics (`reference.picture`) a picture is compared with those of clean parts:

    too dark, too bright   light of the picture, the median over five percentiles of level / level of the reference,
                           so that a white phone or a wide reflection does not count as light
    low contrast           fog, an empty belt, a test card of one colour
    unsharp                edges far wider than in focus, whatever their contrast; in both directions, or in the one in
                           which something moved during the exposure
    blank                  rows or columns on which there is nothing, or only the one before again: half a picture came
    stuck colour           red, green or blue is one value all over a picture on which the others show something

The limits are the extremes of the reference, widened by the factors below. Of 3000 rendered parts of the simulated
line (10 seeds) and 12 photographs of phones none is over a limit; of 240 of four further seeds none. Under 0.3 of the
light all of 80 are, under 0.4 37, at twice the light 2, at four times all; behind a blur of 3 pixels at 1280x720, where
the model begins to miss scratches (5 of 45; 19 of 45 at 4 pixels), 78, from 4 pixels on all.

A picture that is much smaller than those of the reference is a piece of a part (a cut-out given to `predict`): it has
to have light like the others, but a piece of glass has neither edges nor contrast. Without statistics, as an engineer's
own bundle may come, only what holds for every camera is asked: that something is brighter than black, darker than
white, that there is structure beyond noise, that the steps there are have an edge, and that no colour is stuck at a
level (one of 0 may be that of a coloured lamp). A small bright part on a black
ground passes, as it must; a lamp at a fifth does not stand out. An older bundle that only knows its `brightness_mean`
is held to that as well. `models teach` and the training programs write the statistics.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.manifest import InputSpec, PictureReference, Reference
from edge_runtime.features.image import brightness
from edge_runtime.features.picture_measures import BLANK_DARK, BLANK_RANGE, LEAST_STEP, Measures, measure

STILL = "stands still: the picture of the part before"
BLACK, WHITE = 12.0, 243.0  # levels; nothing but sensor noise is beyond them on a picture that shows something
LEAST_STRUCTURE = 3.0  # levels between cells; the plainest piece of dark glass has 4
LEAST_SHARPNESS = 0.2  # of any picture that has steps: a blur of 6 pixels at 1280x720; a straight ramp is at 0.125
LEAST_CRISPNESS = 0.08  # of the same: a blur of 20 pixels under noise
SHOWN = 32  # levels of range: a colour of which so much is seen, or was, is no dark or white one
COLOURS = ("red", "green", "blue")
DARKER, BRIGHTER = 0.65, 2.0  # than the darkest and the brightest picture of the reference
LESS_CONTRAST, LESS_SHARP, LESS_CRISP = 0.5, 0.7, 0.5  # than the least of the reference
ASIDE = 0.025  # of the reference's pictures at either end: one odd picture must not widen the limits for all
MORE_BLANK = 0.1  # of the rows or columns, than the most of the reference
PIECE = 0.6  # of the reference's width: narrower pictures are cut-outs
LEVEL_OFFSET = 2.0  # added to both sides of a ratio of levels: a level of 1 or 2 is the sensor's own
DARK_LEVEL = 6.0  # a level of the reference under it says nothing about the lamp
MEAN_SHARE = 0.3  # of `brightness_mean`, either way, where a bundle knows no more
DOUBTFUL = 0.6  # teaching: how much further than above a picture may be from the middle of the others


@dataclass(frozen=True, slots=True)
class PictureGate:
    """The question for the pictures of one model: an instance is a function from a picture to what is wrong with it."""

    spec: InputSpec | None = None
    reference: Reference = field(default_factory=Reference)

    def __call__(self, image: NDArray[np.uint8]) -> str:
        """What is wrong, such as `too dark, mean 2 of 45`, or empty. image: uint8 RGB (height, width, 3), any size."""
        seen = measure(image, self.spec)
        like = self.reference.picture
        if like is not None:
            mean = self.reference.brightness_mean
            return _without_anything(seen, mean) or _unlike(seen, like, mean)
        mean = self.reference.brightness_mean
        return _without_anything(seen, mean) or ("" if mean is None else _unlike_mean(brightness(image), mean))


def picture_reference(pictures: Sequence[NDArray[np.uint8]], spec: InputSpec | None) -> PictureReference:
    """The statistics of pictures of clean parts, for a bundle whose model looks at them as `spec` says."""
    seen = [measure(picture, spec) for picture in pictures]
    levels = _middle_levels(seen)
    light = sorted(_light(one, levels) for one in seen)
    aside = int(ASIDE * len(seen))
    return PictureReference(
        pictures=len(seen),
        width=min(one.width for one in seen),
        levels=levels,
        light=(round(light[aside], 4), round(light[-1 - aside], 4)),
        contrast=sorted(one.contrast for one in seen)[aside],
        sharpness=round(sorted(one.sharpness for one in seen)[aside], 4),
        one_way=round(sorted(one.one_way for one in seen)[aside], 4),
        crispness=round(sorted(one.crispness for one in seen)[aside], 4),
        blank=round(sorted(one.blank for one in seen)[-1 - aside], 4),
        colours=_least_colours(seen),
    )


def odd_pictures(pictures: Sequence[NDArray[np.uint8]], spec: InputSpec | None) -> dict[int, str]:
    """Which of these pictures of good parts show nothing, or are nothing like the others, and why.

    The middle of the pictures is the measure, so that the odd ones do not set it; limits are wide, because parts vary.
    """
    seen = [measure(picture, spec) for picture in pictures]
    odd = {number: fault for number, one in enumerate(seen) if (fault := _without_anything(one, None))}
    rest = [one for number, one in enumerate(seen) if number not in odd]
    if not rest:
        return odd
    like = PictureReference(
        pictures=len(rest),
        width=1 + round(statistics.median(one.width for one in rest)) // 4,  # sizes may differ
        levels=_middle_levels(rest),
        light=(DOUBTFUL, 1.0 / DOUBTFUL),
        contrast=DOUBTFUL * statistics.median(one.contrast for one in rest),
        sharpness=DOUBTFUL * statistics.median(one.sharpness for one in rest),
        crispness=DOUBTFUL * statistics.median(one.crispness for one in rest),
        blank=min(1.0, statistics.median(one.blank for one in rest) + MORE_BLANK),
    )
    mean = statistics.median(one.mean for one in rest)
    odd |= {
        number: fault for number, one in enumerate(seen) if number not in odd and (fault := _unlike(one, like, mean))
    }
    return odd


def _without_anything(seen: Measures, mean: float | None) -> str:
    of = "" if mean is None else f" of {mean:.0f}"
    if seen.brightest <= BLACK:
        return f"too dark, mean {seen.mean:.0f}{of}"
    if seen.darkest >= WHITE:
        return f"too bright, mean {seen.mean:.0f}{of}"
    least = LEAST_STRUCTURE + seen.noise
    if seen.structure < least:
        return f"featureless, contrast {seen.structure:.0f}, at least {least:.0f} is needed"
    if stuck := _stuck_colour(seen, (0.0, 0.0, 0.0)):
        return stuck
    if seen.step >= LEAST_STEP:
        if seen.sharpness < LEAST_SHARPNESS:
            return f"unsharp, sharpness {seen.sharpness:.2f}, at least {LEAST_SHARPNESS:.2f} is needed"
        if seen.crispness < LEAST_CRISPNESS:
            return f"unsharp, edges of {seen.edge:.0f} in a contrast of {seen.contrast:.0f}"
    return ""


def _unlike(seen: Measures, like: PictureReference, mean: float | None) -> str:
    light = _light(seen, like.levels)
    of = "" if mean is None else f" of {mean:.0f}"
    if light < DARKER * like.light[0]:
        return f"too dark, mean {seen.mean:.0f}{of}, light {light:.2f}, at least {DARKER * like.light[0]:.2f}"
    if light > BRIGHTER * like.light[1]:
        return f"too bright, mean {seen.mean:.0f}{of}, light {light:.1f}, at most {BRIGHTER * like.light[1]:.1f}"
    if stuck := _stuck_colour(seen, like.colours):
        return stuck
    if seen.width < PIECE * like.width:
        return ""
    if seen.blank > like.blank + MORE_BLANK:
        return f"blank, {seen.blank:.0%} of the picture shows nothing"
    if seen.contrast < LESS_CONTRAST * like.contrast:
        return f"low contrast, {seen.contrast:.0f}, at least {LESS_CONTRAST * like.contrast:.0f} is needed"
    if seen.sharpness < LESS_SHARP * like.sharpness:
        return f"unsharp, sharpness {seen.sharpness:.2f}, at least {LESS_SHARP * like.sharpness:.2f} is needed"
    if seen.one_way < LESS_SHARP * like.one_way:
        least = LESS_SHARP * like.one_way
        return (
            f"unsharp one way, sharpness {seen.one_way:.2f}, at least {least:.2f} is needed: it moved in the exposure"
        )
    if seen.crispness < LESS_CRISP * like.crispness:
        return f"unsharp, edges of {seen.edge:.0f} in a contrast of {seen.contrast:.0f}"
    return ""


def _stuck_colour(seen: Measures, usual: tuple[float, float, float]) -> str:
    """usual: range of each colour on clean parts, 0 where it is not known."""
    if max((most - least for least, most in seen.colours), default=0) < SHOWN:
        return ""
    for name, (least, most), known in zip(COLOURS, seen.colours, usual, strict=False):
        if most - least <= BLANK_RANGE and (most > BLANK_DARK or known >= SHOWN):
            return f"{name} is {most} all over the picture: the camera or its cable has lost that colour"
    return ""


def _least_colours(seen: Sequence[Measures]) -> tuple[float, float, float]:
    ranges = [[float(most - least) for least, most in one.colours] for one in seen]
    if not all(ranges):  # grey pictures
        return 0.0, 0.0, 0.0
    red, green, blue = (min(colour) for colour in zip(*ranges, strict=True))
    return red, green, blue


def _unlike_mean(level: float, mean: float) -> str:
    if level < MEAN_SHARE * mean:
        return f"too dark, mean {level:.0f} of {mean:.0f}"
    if level > mean / MEAN_SHARE:
        return f"too bright, mean {level:.0f} of {mean:.0f}"
    return ""


def _middle_levels(seen: Sequence[Measures]) -> tuple[float, float, float, float, float]:
    a, b, c, d, e = (statistics.median(column) for column in zip(*(one.levels for one in seen), strict=True))
    return a, b, c, d, e


def _light(seen: Measures, levels: Sequence[float]) -> float:
    """How much light there is, 1 being that of `levels`. Levels that are dark anyway are left out, if any is not."""
    pairs = [pair for pair in zip(seen.levels, levels, strict=True) if pair[1] >= DARK_LEVEL]
    pairs = pairs or list(zip(seen.levels, levels, strict=True))
    return statistics.median((level + LEVEL_OFFSET) / (usual + LEVEL_OFFSET) for level, usual in pairs)
