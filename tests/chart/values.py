"""Checks values.yaml against schema and templates.

usage: values.py closed CHART             every object of values.schema.json refuses unknown keys
       values.py effective HELM CHART FILE...
                                          taking any value out of FILE changes what the chart renders, and together the files
                                          (JSON) set every value of the chart
"""

import concurrent.futures
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from reference import documented  # noqa: E402


def open_objects(node, path):
    """Objects that take any key. Maps with keys of the user's choice bound their values, and `global` is not ours."""
    if isinstance(node, list):
        for index, child in enumerate(node):
            yield from open_objects(child, f"{path}/{index}")
    elif isinstance(node, dict):
        kinds = node.get("type")
        closed = node.get("additionalProperties") is False
        is_map = isinstance(node.get("additionalProperties"), dict) and "properties" not in node
        if (kinds == "object" or isinstance(kinds, list) and "object" in kinds) and not closed and not is_map:
            if path != "/properties/global":
                yield path
        for key, child in node.items():
            if path + "/" + key not in {"/allOf"}:
                yield from open_objects(child, f"{path}/{key}")


def closed(chart):
    return [f"{path} takes any key" for path in open_objects(json.loads((chart / "values.schema.json").read_text()), "")]


def lookup(values, path):
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def without(values, path):
    values = copy.deepcopy(values)
    parent = values
    for name in path[:-1]:
        parent = parent[name]
    del parent[path[-1]]
    return values


def effective(helm, chart, files):
    def render(values):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            result = subprocess.run([helm, "template", "r", chart, "-f", file.name], capture_output=True, text=True)
        return result.stdout if result.returncode == 0 else "refused: " + result.stderr

    paths = [value["path"] for value in documented((chart / "values.yaml").read_text())]
    sets = [json.loads(pathlib.Path(file).read_text()) for file in files]
    cases = [(values, path.split(".")) for values in sets for path in paths if lookup(values, path.split("."))]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        whole = list(pool.map(render, sets))
        without_it = list(pool.map(lambda case: render(without(*case)), cases))
    faults = [f"{file}: {text}" for file, text in zip(files, whole) if text.startswith("refused")]
    for (values, path), text in zip(cases, without_it):
        if text == whole[sets.index(values)]:
            faults.append(f"{'.'.join(path)} changes nothing in {files[sets.index(values)]}")
    covered = {".".join(path) for _, path in cases}
    return faults + [f"{path} is set in no file" for path in paths if path not in covered]


if sys.argv[1] == "closed":
    faults = closed(pathlib.Path(sys.argv[2]))
else:
    faults = effective(sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4:])
print("\n".join(faults))
sys.exit(1 if faults else 0)
