#!/usr/bin/env python3
"""Checks statemachine/*.asl.json: structure, transitions, JSONata expressions and substitutions.

The structure is cfn-lint's own Step Functions schema, which it applies to a definition inside a template only: each
machine is wrapped in one. What the schema cannot say is checked here: that every transition leads to a state, that
every state is reached, that every JSONata expression parses, and that the substitutions of a machine and those that
pipeline.yaml declares for it are the same.
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


def structure(definition):
    """What cfn-lint says about the definition inside a template."""
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
    """Transitions that lead nowhere and states that nothing leads to."""
    for name, machine in machines(definition):
        states = machine.get("States", {})
        reached, ahead = set(), [machine.get("StartAt")]
        while ahead:
            state = ahead.pop()
            if state in reached:
                continue
            reached.add(state)
            if state not in states:
                yield f"{name} leads to {state!r}, which is no state of it"
                continue
            ahead.extend(transitions(states[state]))
        for state in states:
            if state not in reached:
                yield f"{name}: no way leads to {state!r}"


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
            except Exception as error:  # the parser raises several kinds, all of them about the expression
                yield f"{path}: not JSONata: {error}"
        elif "{%" in text:
            # https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
            yield f"{path}: an expression must fill the string from {{% to %}}, without a space around it"


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
        yield f"{name} is in DefinitionSubstitutions of infra/pipeline.yaml, and not used"


def problems(file):
    """All that is wrong with the machine in a file."""
    try:
        definition = json.loads(file.read_text())
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


def main():
    files = sorted(pathlib.Path(name) for name in sys.argv[1:]) or sorted((ROOT / "statemachine").glob("*.asl.json"))
    if not files:
        sys.exit("lint-state-machines: there is no state machine in statemachine/")
    found = [f"{file.name}: {problem}" for file in files for problem in problems(file)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
