#!/bin/bash
# The page of the task format: each example on it is a document that `cox validate` takes, and it has a word about
# each field that the schema has and this version runs.
. "$(dirname "$0")/lib.sh"
need_programs cox python3
page=$scenario_root/docs/reference/task-format.md

# Blocks of YAML, each a file; what all documents begin with is left out on the page.
python3 - "$page" "$scenario_dir" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
for i, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)):
    open(f"{sys.argv[2]}/example-{i:02}.yaml", "w").write("api_version: v1\nname: example\n" + block)
PY
for file in "$scenario_dir"/example-*.yaml; do
    check "the page's $(basename "$file" .yaml)" cox validate "$file"
done
sed -i 's/argv/argw/' "$scenario_dir/example-00.yaml"
check_exit "an example that is wrong is found" 2 cox validate "$scenario_dir/example-00.yaml"

# missing_fields PAGE
missing_fields() {
    python3 - "$1" "$scenario_root/proto/task.v1.schema.json" <<'PY'
import json, re, sys
page, schema = open(sys.argv[1]).read(), json.load(open(sys.argv[2]))
refused = {"takes_secrets"}
words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]*)`", page))))

def fields(node, path):
    for name, body in node.get("properties", {}).items():
        if body is False:
            continue
        if name not in words:
            print(f"{path}.{name}")
        if isinstance(body, dict):
            fields(body, name)

fields(schema, "document")
for name, body in schema["$defs"].items():
    if name not in refused:
        fields(body, name)
PY
}
check_equal "fields that the page does not name" "" "$(missing_fields "$page")"
sed 's/tolerate_failures/tolerate/' "$page" >"$scenario_dir/page.md"
check_equal "a field that is not named is found" map.tolerate_failures "$(missing_fields "$scenario_dir/page.md")"
finish
