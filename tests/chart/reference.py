"""Carries the comments of a chart's values.yaml into the table of its README.md and the descriptions of its values.schema.json.

usage: reference.py CHART OUT

Comments are written as helm-docs reads them: `# -- ` and the lines below it, right above the key.
"""

import json
import pathlib
import re
import sys

BEGIN, END = "<!-- values: written by tests/chart/sync.sh -->\n", "<!-- end of values -->\n"


def documented(text):
    """(path, default as written, comment) of each value that has a comment; a value without one has values below it that do."""
    found, parents, comment, open_value = [], [], None, None
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("# -- "):
            comment, open_value = [bare[5:]], None
        elif bare.startswith("#"):
            if comment is not None:
                comment.append(bare.lstrip("# "))
        elif not bare:
            open_value = None
        else:
            indent = len(line) - len(line.lstrip())
            key = re.fullmatch(r"([A-Za-z0-9-]+):(?: (.*))?", bare)
            if open_value and (indent > open_value["indent"] or bare.startswith("- ")):
                open_value["lines"].append(line[open_value["indent"]:])
                continue
            if not key:
                sys.exit(f"values.yaml line {number}: {bare} is neither a key nor part of a documented value")
            parents = [parent for parent in parents if parent[0] < indent]
            path = ".".join([name for _, name in parents] + [key[1]])
            if comment is None:
                if key[2]:
                    sys.exit(f"values.yaml line {number}: {path} has no comment")
                parents.append((indent, key[1]))
                open_value = None
            else:
                open_value = {"path": path, "value": key[2], "lines": [], "indent": indent, "comment": " ".join(comment)}
                found.append(open_value)
            comment = None
    return found


def table(values):
    rows = ["| Value | Default | Meaning |\n", "|---|---|---|\n"]
    for value in values:
        default = f"`{value['value']}`" if value["value"] else "see values.yaml"
        rows.append(f"| `{value['path']}` | {default} | {value['comment'].replace('|', chr(92) + '|')} |\n")
    return "".join(rows)


def main(chart, out):
    values = documented((chart / "values.yaml").read_text())

    schema = json.loads((chart / "values.schema.json").read_text())
    for value in values:
        node = schema
        for name in value["path"].split("."):
            if name not in node.get("properties", {}):
                sys.exit(f"{chart.name}: values.schema.json does not have {value['path']}")
            node = node["properties"][name]
        node["description"] = value["comment"].replace("`", "")
    (out / "values.schema.json").write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")

    readme = (chart / "README.md").read_text()
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        sys.exit(f"{chart.name}: README.md lacks the marks around the table of values")
    before, rest = readme.split(BEGIN)
    (out / "README.md").write_text(before + BEGIN + table(values) + END + rest.split(END)[1])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
