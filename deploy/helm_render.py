"""Renders deploy/helm/koregate as helm would, for deploy/check, on machines without helm.

It knows the part of Go templates that the chart keeps to, and refuses all else: comments, `if`, `else if`, `else` and
`end` with a path as the condition, and paths such as `.Values.image.tag` through `toYaml`, `indent N` and `sha256sum`.
It is no proof that helm accepts the chart. Usage: helm_render.py CHART OUTPUT [PATH=VALUE …], with values in YAML.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import jsonschema
import yaml

ACTION = re.compile(r"(\s*)\{\{-\s(.*?)\s*\}\}|\{\{\s?(.*?)\s*\}\}", re.DOTALL)


def lookup(scope, path):
    if not re.fullmatch(r"(\.\w+)+", path):
        raise ValueError(f"{path} is no path")
    for name in path[1:].split("."):
        scope = scope[name]
    return scope


def value(scope, expression):
    first, *pipeline = [part.strip().split() for part in expression.split("|")]
    functions = [first[:-1], *pipeline] if len(first) > 1 else pipeline
    result = lookup(scope, first[-1])
    for function, *arguments in functions:
        if function == "toYaml" and not arguments:
            result = yaml.safe_dump(result, default_flow_style=False, width=10_000).rstrip("\n")
        elif function == "indent":
            pad = " " * int(arguments[0])
            result = "\n".join(pad + line for line in str(result).split("\n"))
        elif function == "sha256sum" and not arguments:
            result = hashlib.sha256(result.encode()).hexdigest()
        else:
            raise ValueError(f"{function} is not known here")
    return {True: "true", False: "false"}.get(result, str(result)) if isinstance(result, bool) else str(result)


def render(text, scope):
    """The text with all actions carried out."""
    output, position = [], 0
    # For each open `if`: whether this branch is written, whether one was already, and whether the outside is written.
    branches = []
    is_written = True
    for match in ACTION.finditer(text):
        before = text[position:match.start()] + ("" if match[2] is not None else match[1] or "")
        if is_written:
            output.append(before)
        position = match.end()
        action = match[2] if match[2] is not None else match[3]
        word, _, rest = action.partition(" ")
        if action.startswith("/*"):
            continue
        if word == "if":
            is_true = is_written and bool(lookup(scope, rest))
            branches.append((is_true, is_written))
            is_written = is_true
        elif word == "else":
            was_true, outside = branches.pop()
            condition = lookup(scope, rest.removeprefix("if ")) if rest else True
            is_written = outside and not was_true and bool(condition)
            branches.append((was_true or is_written, outside))
        elif word == "end":
            is_written = branches.pop()[1]
        elif is_written:
            output.append(value(scope, action))
    if branches:
        raise ValueError("an if has no end")
    return "".join(output) + text[position:]


def main():
    chart, target, *settings = sys.argv[1:]
    chart = Path(chart)
    values = yaml.safe_load((chart / "values.yaml").read_text())
    for setting in settings:
        path, _, text = setting.partition("=")
        *tables, key = path.split(".")
        table = values
        for name in tables:
            table = table[name]
        table[key] = yaml.safe_load(text)
    jsonschema.validate(values, json.loads((chart / "values.schema.json").read_text()))
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    scope = {"Values": values, "Release": {"Name": "koregate"}, "Chart": {"AppVersion": about["appVersion"]}}
    documents = []
    for template in sorted((chart / "templates").glob("*.yaml")):
        documents += [part for part in yaml.safe_load_all(render(template.read_text(), scope)) if part]
    Path(target).write_text(yaml.safe_dump_all(documents, sort_keys=False))


main()
