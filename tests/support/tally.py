"""Counts of a property's examples, so that none passes by leaving all of them out."""

from __future__ import annotations

from collections import Counter


class Tally:
    """Examples that a property was checked on, and those set aside, by the reason."""

    def __init__(self) -> None:
        self.checked = 0
        self.aside = Counter[str]()

    def assert_enough(self, least: int, share: float) -> None:
        """At least `least` examples were checked, and no more than `share` of all set aside."""
        aside = self.aside.total()
        assert self.checked >= least and aside <= share * (self.checked + aside), (self.checked, self.aside)
