#!/usr/bin/env python3
"""Checks statemachine/*.asl.json: structure, transitions, JSONata expressions, substitutions and layout.

The structure is cfn-lint's own Step Functions schema, which cfn-lint applies only to a definition inside a template.
So each machine is wrapped in one. This script checks what the schema cannot: that every transition leads to a state,
that every state is reached, that every JSONata expression parses, that pipeline.yaml declares exactly the substitutions
that a machine uses, and that the file is laid out as `--write` lays it out.
"""

import json
import pathlib
import re
import sys

from cfnlint import decode
from cfnlint.api import lint
from jsonata import Jsonata

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUBSTITUTION = re.compile(r"\$\{(\w+)\}")
EXPRESSION = re.compile(r"^\{%(.*)%\}$", re.DOTALL)
WIDTH = 120


def laid_out(value, indent=0, column=0):
    """The value as JSON: on one line where that fits, else with short members sharing lines."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or column + len(line) < WIDTH:
        return line
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    keys = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    members = list(value.values() if isinstance(value, dict) else value)
    if len(members) == 1:
        key = opening + keys[0]
        return key + laid_out(members[0], indent, column + len(key)) + closing
    lines, shared = [], False
    for key, member in zip(keys, members):
        text = key + laid_out(member, indent + 2, indent + 2 + len(key))
        may_share = "\n" not in text and not (isinstance(value, list) and isinstance(member, dict))
        if shared and may_share and len(lines[-1]) + len(text) + 3 <= WIDTH:
            lines[-1] += f", {text}"
        else:
            lines.append(" " * (indent + 2) + text)
        shared = may_share
    if isinstance(value, list) and isinstance(value[0], str):
        return opening + ",\n".join(lines).lstrip() + closing
    return f"{opening}\n" + ",\n".join(lines) + f"\n{' ' * indent}{closing}"


def with_numbers(value):
    """The value with a number in place of every expression in TimeoutSeconds, which the schema does not know:
    https://docs.aws.amazon.com/step-functions/latest/dg/state-task.html"""
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_expression = isinstance(timeout := value.get("TimeoutSeconds"), str) and EXPRESSION.match(timeout)
    return {key: 1 if key == "TimeoutSeconds" and is_expression else with_numbers(inner) for key, inner in value.items()}


def structure(definition):
    """The problems that cfn-lint reports for the definition inside a template."""
    definition = with_numbers(definition)
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "Machine": {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "RoleArn": "arn:aws:iam::123456789012:role/machine",
                    "Definition": definition,
                    "DefinitionSubstitutions": {name: "value" for name in substitutions(definition)},
                },
            }
        },
    }
    for match in lint(json.dumps(template, indent=1)):
        yield f"{match.rule.id}: {match.message} (at {'/'.join(str(step) for step in match.path[4:])})"


def machines(definition, name="the machine"):
    """The definition and those inside its Parallel and Map states, each with a name to report it by."""
    yield name, definition
    for state_name, state in definition.get("States", {}).items():
        inner = state.get("Branches", []) + [state[key] for key in ("ItemProcessor", "Iterator") if key in state]
        for machine in inner:
            yield from machines(machine, state_name)


def transitions(state):
    """The names of the states that may come after this one."""
    for way in [state, *state.get("Choices", []), *state.get("Catch", [])]:
        if "Next" in way:
            yield way["Next"]
    if "Default" in state:
        yield state["Default"]


def graph(definition):
    """Transitions to states that do not exist, and states that no transition leads to."""
    for name, machine in machines(definition):
        states = machine.get("States", {})
        reached, ahead = set(), [machine.get("StartAt")]
        while ahead:
            state = ahead.pop()
            if state in reached:
                continue
            reached.add(state)
            if state not in states:
                yield f"{name} leads to {state!r}, which does not exist"
                continue
            ahead.extend(transitions(states[state]))
        for state in states:
            if state not in reached:
                yield f"{name}: no transition leads to {state!r}"


def strings(value, path=""):
    """Every string of a JSON value, with the path to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, f"{path}/{index}")


def expressions(definition):
    """JSONata expressions that do not parse. A substitution is a literal by the time Step Functions sees it."""
    for path, text in strings(definition):
        if expression := EXPRESSION.match(text):
            try:
                Jsonata(SUBSTITUTION.sub("1", expression[1]))
            except Exception as error:  # the parser raises several kinds, all about the expression
                yield f"{path}: not JSONata: {error}"
        elif "{%" in text:
            # https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
            yield f"{path}: an expression must fill the whole string from {{% to %}}, without spaces around it"


def substitutions(definition):
    """The names of the substitutions a definition uses."""
    return {name for _, text in strings(definition) for name in SUBSTITUTION.findall(text)}


def declared(file):
    """The substitutions pipeline.yaml declares for a machine's file, or None when no machine there uses the file."""
    template, problems = decode.decode(str(ROOT / "infra" / "pipeline.yaml"))
    if problems:
        sys.exit("infra/pipeline.yaml does not parse; see cfn-lint")
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if properties.get("DefinitionUri") == f"../statemachine/{file.name}":
            return set(properties.get("DefinitionSubstitutions", {}))
    return None


def same_substitutions(file, definition):
    """Differences between the substitutions a machine uses and those the template gives it."""
    given, used = declared(file), substitutions(definition)
    if given is None:
        yield "no state machine of infra/pipeline.yaml is defined by this file"
        return
    for name in sorted(used - given):
        yield f"${{{name}}} is not in DefinitionSubstitutions of infra/pipeline.yaml"
    for name in sorted(given - used):
        yield f"{name} is in DefinitionSubstitutions of infra/pipeline.yaml but is not used"


def problems(file):
    """All problems of the machine in a file."""
    text = file.read_text()
    try:
        definition = json.loads(text)
    except json.JSONDecodeError as error:
        yield f"not JSON: {error}"
        return
    if malformed := list(structure(definition)):
        # The further checks rely on the structure.
        yield from malformed
        return
    yield from graph(definition)
    yield from expressions(definition)
    yield from same_substitutions(file, definition)
    if text != laid_out(definition) + "\n":
        yield "not laid out as infra/lint-state-machines.py --write lays it out"


def main():
    names = [name for name in sys.argv[1:] if name != "--write"]
    files = sorted(pathlib.Path(name) for name in names) or sorted((ROOT / "statemachine").glob("*.asl.json"))
    if not files:
        sys.exit("lint-state-machines: statemachine/ has no state machine")
    if "--write" in sys.argv:
        for file in files:
            file.write_text(laid_out(json.loads(file.read_text())) + "\n")
    found = [f"{file.name}: {problem}" for file in files for problem in problems(file)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
