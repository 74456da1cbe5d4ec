"""Routing rules: what an object says of itself → analyse, store only or refuse, and where its results go.

Pure. The first rule whose conditions all hold decides; where none does, the object is analysed and every output goes to
every destination. Before any rule stands the loop guard: what this service made is kept, never analysed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from fnmatch import translate
from typing import Final

from dermoscopy.errors import Misconfigured, Rejected
from dermoscopy.routing import EVERYTHING, OUTPUTS, Action, Route
from dicom_listener.syntaxes import IMAGE_CLASSES

LOOP_GUARD: Final = "loop guard"
"""Name in place of a rule's where an object of our own comes back."""

_LONGEST: Final = 256
"""Characters of a value that are looked at; the standard's own limit for these values is 64."""


class RefusedByRule(Rejected):
    """A rule of this site refuses such objects."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules may look at. A fact holds where one of its texts matches; absent values are no text."""

    calling_ae: tuple[str, ...] = ()
    station: tuple[str, ...] = ()
    """Station Name (0008,1010)."""
    sop_class: tuple[str, ...] = ()
    """UID and name."""
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    """Body Part Examined (0018,0015), and code and meaning of the Anatomic Region Sequence."""
    description: tuple[str, ...] = ()
    """Study Description (0008,1030) and Series Description (0008,103E)."""
    own: bool = False
    """Made by this service, by its Manufacturer (0008,0070)."""


CONDITIONS: Final = tuple(f.name for f in fields(Facts) if f.name != "own")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as configured. A condition without patterns always holds."""

    name: str
    action: str = Action.ANALYSE.value
    calling_ae: tuple[str, ...] = ()
    station: tuple[str, ...] = ()
    sop_class: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    outputs: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one rule, and why; ``why`` names patterns of the rule and values that decided."""

    rule: str
    holds: bool
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The route and how it came about, rule by rule up to the one that decided."""

    route: Route
    steps: tuple[Step, ...] = field(default=())


class Rules:
    """Checked rules in their order; safe to ask from many threads."""

    def __init__(self, rules: Iterable[Rule] = (), destinations: Iterable[str] = ()) -> None:
        """Raises `Misconfigured`, naming the rule, when one of them cannot be meant."""
        self._rules = tuple(rules)
        known = tuple(destinations)
        _check_order(self._rules)
        for rule in self._rules:
            _check(rule, known)
        self._patterns = {
            (rule.name, condition): [(pattern, _compiled(rule.name, condition, pattern)) for pattern in patterns]
            for rule in self._rules
            for condition in CONDITIONS
            if (patterns := getattr(rule, condition))
        }

    def decide(self, facts: Facts) -> Decision:
        """What is to happen with an object of these facts, and why."""
        if facts.own:
            why = "its manufacturer says that this service made it: kept, never analysed"
            return Decision(Route(Action.STORE, LOOP_GUARD), (Step(LOOP_GUARD, True, why),))
        steps = []
        for rule in self._rules:
            step = self._try(rule, facts)
            steps.append(step)
            if step.holds:
                route = Route(Action(rule.action), rule.name, rule.outputs, rule.destinations)
                return Decision(route, tuple(steps))
        return Decision(EVERYTHING, tuple(steps))

    def _try(self, rule: Rule, facts: Facts) -> Step:
        reasons = []
        for condition in CONDITIONS:
            patterns = self._patterns.get((rule.name, condition))
            if patterns is None:
                continue
            values: tuple[str, ...] = getattr(facts, condition)
            found = next(((v, p) for v in values for p, compiled in patterns if compiled.search(v[:_LONGEST])), None)
            if found is None:
                said = " and ".join(repr(value) for value in values) or "absent"
                wanted = " or ".join(repr(pattern) for pattern, _ in patterns)
                return Step(rule.name, False, f"{condition} is {said}, not {wanted}")
            reasons.append(f"{condition} {found[0]!r} matches {found[1]!r}")
        return Step(rule.name, True, ", ".join(reasons) or "it has no condition")


def _check_order(rules: tuple[Rule, ...]) -> None:
    seen = set()
    for position, rule in enumerate(rules, 1):
        if not rule.name.strip() or rule.name == LOOP_GUARD:
            raise Misconfigured(f"rule number {position} needs a name of its own")
        if rule.name in seen:
            raise Misconfigured(f"rule {rule.name!r}: there are two of this name")
        seen.add(rule.name)
        if position < len(rules) and not any(getattr(rule, condition) for condition in CONDITIONS):
            raise Misconfigured(f"rule {rule.name!r} has no condition, so no rule after it is ever asked: put it last")


def _check(rule: Rule, destinations: tuple[str, ...]) -> None:
    where = f"rule {rule.name!r}"
    if rule.action not in set(Action):
        raise Misconfigured(f"{where}: action {rule.action!r} is none of {', '.join(Action)}")
    if rule.action != Action.ANALYSE and (rule.outputs is not None or rule.destinations is not None):
        raise Misconfigured(f"{where}: outputs and destinations mean nothing where the action is {rule.action!r}")
    outputs = [kind.value for kind in OUTPUTS]
    for output in rule.outputs or ():
        if output not in outputs:
            raise Misconfigured(f"{where}: output {output!r} is none of {', '.join(outputs)}")
    for destination in rule.destinations or ():
        if destination not in destinations:
            known = ", ".join(destinations) or "none is configured"
            raise Misconfigured(f"{where}: destination {destination!r} is not configured ({known})")
    for pattern in rule.sop_class:
        compiled = _compiled(rule.name, "sop_class", pattern)
        if not any(compiled.search(text) for pair in IMAGE_CLASSES.items() for text in pair):
            raise Misconfigured(f"{where}: sop_class {pattern!r} is no class that is taken: see docs/dicom.md")


def _compiled(rule: str, condition: str, pattern: str) -> re.Pattern[str]:
    """``/…/`` is a regular expression, found anywhere; anything else a glob for the whole value. Case is ignored."""
    if not pattern:
        raise Misconfigured(f"rule {rule!r}: {condition} has an empty pattern; leave it out, or say '*'")
    expression = pattern[1:-1] if len(pattern) > 2 and pattern[0] == pattern[-1] == "/" else rf"\A{translate(pattern)}"
    try:
        return re.compile(expression, re.IGNORECASE)
    except re.error as error:
        raise Misconfigured(f"rule {rule!r}: {condition} {pattern!r} is no regular expression: {error}") from error
