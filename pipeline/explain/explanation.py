"""One image explained: the generator as a run calls it, with a `Watcher`, and its steps in order.

Owns which pictures a step has and what is said of each. The funnel is the run's, and must be what was watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ContractError
from pipeline.explain.records import Example, Explanation, Role, Scores, Shape, Step
from pipeline.explain.watching import Beaten, Kept, Watcher
from pipeline.explain.words import POINTS, WORDS
from pipeline.masks.generator import Image_HW3, generate_masks
from pipeline.masks.observer import Among
from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.masks.rle import Rle
from pipeline.masks.segmenter import Encoded, Segmenter
from pipeline.plain_values import spelled
from pipeline.records import Funnel
from pipeline.settings import Recipe

Groups = tuple[tuple[str, tuple[Example, ...]], ...]
DUPLICATES = "Kept and removed, from boxes just above the threshold to nearly equal ones"


def explain(
    image_HW3: Image_HW3, segmenter: Segmenter[Encoded], recipe: Recipe, prompts: Prompts = EVERYTHING
) -> Explanation:
    """The image's masks, and how they came to be.

    raises  as `generate_masks`
    """
    watcher = Watcher(recipe)
    [result] = generate_masks([image_HW3], segmenter, recipe, prompts=[prompts], observer=watcher)
    seen = Funnel(candidates=watcher.candidates, kept=watcher.kept, **watcher.removed)
    if seen != result.funnel:
        raise ContractError(f"the funnel of the image is {result.funnel}, and what was watched is {seen}")
    steps = _Steps(watcher, recipe, (image_HW3.shape[0], image_HW3.shape[1]))
    return Explanation(tuple(watcher.crops), tuple(steps.in_order()), result, _named(recipe, POINTS))


@dataclass(frozen=True)
class _Steps:
    """hw  of the image"""

    watcher: Watcher
    recipe: Recipe
    hw: tuple[int, int]

    def in_order(self) -> Iterator[Step]:
        """With how many candidates are left after each."""
        left = self.watcher.candidates
        for key, words in WORDS.items():
            removed = self.watcher.removed[key]
            left -= removed
            shown = tuple((heading, examples) for heading, examples in self._groups(key) if examples)
            settings = _named(self.recipe, words.settings)
            yield Step(key, words.title, words.what, settings, removed, left, self._scores(key), shown)

    def _scores(self, key: str) -> Scores | None:
        watcher, recipe = self.watcher, self.recipe
        match key:
            case "low_predicted_iou":
                return Scores("predicted IoU", np.concatenate(watcher.predicted_iou), recipe.pred_iou_thresh)
            case "low_stability":
                values_N = np.concatenate(watcher.stability)
                return Scores("stability", values_N, recipe.stability_score_thresh, at_least=True)
            case "duplicate_in_crop" | "duplicate_across_crops" | "duplicate_after_clean":
                among = Among(key.removeprefix("duplicate_"))
                values = [getattr(recipe, name) for name in WORDS[key].settings if name.endswith("nms_thresh")]
                return Scores("box IoU", np.array(watcher.box_iou[among]), max(values), above_stays=False)
            case _:
                return None

    def _groups(self, key: str) -> Groups:
        match key:
            case "low_predicted_iou":
                removed = self._each("low_predicted_iou", Role.REMOVED, _predicted_iou)
                kept = self._each("above_predicted_iou", Role.KEPT, _predicted_iou)
                return ("Just removed", removed), ("Just kept", kept)
            case "low_stability":
                removed, kept = self._cuts("low_stability", Role.REMOVED), self._cuts("above_stability", Role.KEPT)
                return ("Just removed", removed), ("Just kept", kept)
            case "at_crop_edge":
                return (("Removed, those of the highest predicted IoU", self._at_edge()),)
            case "duplicate_in_crop" | "duplicate_across_crops" | "duplicate_after_clean":
                pairs = self.watcher.pairs(Among(key.removeprefix("duplicate_")))
                return ((DUPLICATES, tuple(map(self._pair, pairs))),)
            case "too_small":
                return self._cleaned()
            case _:
                return (("Removed", self._each("too_large", Role.REMOVED, self._share)),)

    def _each(self, fate: str, role: Role, said: Callable[[Kept], str]) -> tuple[Example, ...]:
        return tuple(
            Example((Shape(each.traced(self.hw), role),), said(each), each.point_xy) for each in self.watcher.of(fate)
        )

    def _at_edge(self) -> tuple[Example, ...]:
        return tuple(
            Example(
                (Shape(each.traced(self.hw), Role.REMOVED, boxed=True),),
                _predicted_iou(each),
                each.point_xy,
                each.crop.box_xyxy if each.crop else None,
            )
            for each in self.watcher.of("at_crop_edge")
        )

    def _cuts(self, fate: str, role: Role) -> tuple[Example, ...]:
        """The looser cut below the tighter one."""
        offset = self.recipe.stability_score_offset
        return tuple(
            Example(
                (Shape(each.traced(self.hw, cut=-offset), Role.ADDED), Shape(each.traced(self.hw, cut=offset), role)),
                f"stability {each.stability:.3f}",
                each.point_xy,
            )
            for each in self.watcher.of(fate)
        )

    def _pair(self, pair: Beaten) -> Example:
        removed, kept = pair.loser.traced(self.hw), pair.winner.traced(self.hw)
        scores = f"predicted IoU {pair.winner.predicted_iou:.3f} kept, {pair.loser.predicted_iou:.3f} removed"
        return Example(
            (Shape(removed, Role.REMOVED, boxed=True), Shape(kept, Role.KEPT, filled=False, boxed=True)),
            f"box IoU {pair.iou:.3f}; {scores}",
        )

    def _cleaned(self) -> Groups:
        changed = [(before.traced(self.hw), after) for before, after in self.watcher.of("changed")]
        dropped = [before.traced(self.hw) for before, _ in self.watcher.of("too_small")]
        return (
            (
                f"Masks that it changed ({self.watcher.changed:,} in all), those with the most pixels changed",
                tuple(Example(_changes(*each), f"{each[0].area:,} to {each[1].area:,} px") for each in changed),
            ),
            (
                "Dropped, the largest ones",
                tuple(Example((Shape(rle, Role.REMOVED),), f"{rle.area:,} px, in small parts") for rle in dropped),
            ),
        )

    def _share(self, kept: Kept) -> str:
        return f"{kept.traced(self.hw).area / (self.hw[0] * self.hw[1]):.1%} of the image"


def _named(recipe: Recipe, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """As they are typed on a command line."""
    return tuple((f"recipe.{name}", _typed(getattr(recipe, name))) for name in names)


def _typed(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else spelled(value)


def _predicted_iou(kept: Kept) -> str:
    return f"predicted IoU {kept.predicted_iou:.3f}"


def _changes(before: Rle, after: Rle) -> tuple[Shape, ...]:
    """What was removed lies lowest, then what is there now, then what was there before too."""
    return Shape(before, Role.REMOVED), Shape(after, Role.ADDED), Shape(_both(before, after), Role.KEPT)


def _both(one: Rle, other: Rle) -> Rle:
    """Pixels inside two masks of one frame."""
    ends_M = np.union1d(one.run_M.cumsum(), other.run_M.cumsum())
    inside_M = np.ones(len(ends_M), np.bool_)
    for rle in (one, other):
        inside_M &= np.searchsorted(rle.run_M.cumsum(), ends_M - 1, side="right") % 2 == 1
    changes_M = np.concatenate([[0], ends_M])[np.flatnonzero(np.diff(inside_M, prepend=False))]
    return Rle(one.hw, np.diff(np.concatenate([[0], changes_M, [one.hw[0] * one.hw[1]]])))
