"""All families, in order, found by their names."""

from __future__ import annotations

from collections.abc import Mapping

from vlmreason.tasks.puzzles.families import algebra, arithmetic, counting, logic, measures, paths, patterns, spatial
from vlmreason.tasks.puzzles.families.scene import Family

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for module in (counting, arithmetic, logic, paths, algebra, measures, spatial, patterns)
    for family in module.FAMILIES
}
