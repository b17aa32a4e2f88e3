"""Every setting: each value that it does not allow is one line with its name, the value and why."""

import math
import subprocess
import sys
from dataclasses import fields

import pytest

from resnet_variants.models.arguments import ModelArgs
from resnet_variants.registry import UserError
from resnet_variants.settings import Loading, Machine, Study, Workers, rules_of
from resnet_variants.terminal.cli import VERBS
from resnet_variants.training.recipe import Recipe

KINDS = (Recipe, Machine, Loading, Workers, Study, ModelArgs)
SETTINGS = {(kind, name): rule for kind in KINDS for name, rule in rules_of(kind).items()}
VALUES = (None, True, 1.5, "x", b"x", object(), {0.5}, (1, "x"))


def refused(kind, name, value):
    with pytest.raises(UserError) as caught:
        kind(**{name: value})
    message = str(caught.value)
    assert caught.value.field == name
    assert len(message.splitlines()) == 1
    return message


def test_every_setting_has_a_rule():
    unchecked = {(ModelArgs, "device"), (ModelArgs, "dtype")}  # torch's own, checked by hand
    assert {(kind, f.name) for kind in KINDS for f in fields(kind)} == {*SETTINGS} | unchecked


@pytest.mark.parametrize(("kind", "name"), SETTINGS)
def test_a_value_of_another_kind_is_refused(kind, name):
    wanted = SETTINGS[kind, name].kind
    numbers = {int: (int,), float: (int, float)}.get(wanted, (wanted,))
    for value in VALUES:
        means_a_path = wanted.__name__ == "Path" and isinstance(value, str)
        if type(value) in numbers or means_a_path:
            continue
        what = SETTINGS[kind, name].range if name == "workers" else f"of type {wanted.__name__}"
        message = refused(kind, name, value)
        assert message.startswith(f"{name} {value!r} must be {what}") or wanted is tuple


CHOICES = [key for key, rule in SETTINGS.items() if rule.choices]


@pytest.mark.parametrize(("kind", "name"), CHOICES)
def test_an_unknown_choice_is_refused_with_all_choices(kind, name):
    choices = SETTINGS[kind, name].choices
    wrong = "nope" if isinstance(choices[0], str) else 3
    message = refused(kind, name, wrong)
    assert message.startswith(f"unknown {name} {wrong!r};")
    assert message.endswith(f"choices: {', '.join(map(str, choices))}")


def outside(numbers, kind):
    """Numbers just outside a range, and those that no range has."""
    step = 1 if kind is int else 1e-6
    low = numbers.low if numbers.closed in ("right", "neither") else numbers.low - step
    high = numbers.high if numbers.closed in ("left", "neither") else numbers.high + step
    candidates = [low, high, *([] if kind is int else [math.nan, math.inf, -math.inf])]
    return [value for value in candidates if value not in numbers and value != numbers.also]


NUMBERS = [key for key, rule in SETTINGS.items() if rule.range]


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_out_of_range_is_refused_with_the_range(kind, name):
    rule = SETTINGS[kind, name]
    wrong = outside(rule.range, rule.kind)
    assert wrong
    for value in wrong:
        assert refused(kind, name, value) == f"{name} {value!r} must be {rule.range}"


def test_help_and_wrong_flags_load_no_library_that_takes_seconds():
    code = f"""
import sys
sys.argv = ["resnet-variants"]
from resnet_variants.terminal.cli import main
slow = {{"torch", "timm", "pandas", "matplotlib", "scipy"}}
for verb in {list(VERBS)}:
    try: main([verb, "--help"])
    except SystemExit as error: assert not error.code
    print("status", verb, main([verb, "--nope"]), sorted(slow & {{*sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    statuses = [line for line in done.stdout.splitlines() if line.startswith("status ")]
    assert statuses == [f"status {verb} 2 []" for verb in VERBS]
    messages = done.stderr.splitlines()
    assert len(messages) == len(VERBS)
    for verb, message in zip(VERBS, messages, strict=True):
        assert message.startswith(f"resnet-variants {verb}: ")
