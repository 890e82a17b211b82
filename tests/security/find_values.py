"""Names of files that hold one of some values, in any spelling that redaction knows.

usage: find_values.py FILE FOLDER...     FILE: the values, a NUL byte behind each; names are relative to the first folder
"""
import base64, json, os, sys, urllib.parse
def spellings(v):
    b, j = v.encode(), json.dumps(v)[1:-1]
    s = {b, b.hex().encode(), b.hex().upper().encode(), urllib.parse.quote(v).encode(), urllib.parse.quote_plus(v).encode(), j.encode(),
         json.dumps(j)[1:-1].encode(), json.dumps(v, ensure_ascii=False)[1:-1].encode()}
    for pad in range(3):
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            s.add(code(b"x" * pad + b)[(8 * pad + 5) // 6:(8 * (pad + len(b))) // 6])
    return {x for x in s if len(x) >= 8}
values = [v for v in open(sys.argv[1]).read().split("\0") if v]
parts = {x for v in values for line in [v] + v.splitlines() if len(line) >= 8 and "-----" not in line for x in spellings(line)}
found = []
for folder in sys.argv[2:]:
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                data = open(os.path.join(path, name), "rb").read()
            except OSError:
                continue
            found += [os.path.join(path, name)] if any(p in data for p in parts) else []
print(" ".join(sorted(os.path.relpath(f, sys.argv[2]) for f in found)))
