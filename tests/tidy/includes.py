"""Who may include what. A part is a folder; the longest one that a file lies in decides."""
import os
import re

# What a part may include beside its own folder's headers: names of LIBRARIES, public headers ("cox/..."),
# other parts' folders, and a trailing "*" for everything below. "libc" is every header not named here.
BASE = ["cox/base/*", "cox/types.h", "cox/limits.h"]
PURE_LIBC = ["assert.h", "inttypes.h", "limits.h", "stdalign.h", "stdbool.h", "stddef.h", "stdint.h", "string.h"]
PROGRAM = [*BASE, "libc", "cox/agent.h", "cox/attach.h", "cox/task.h", "cox/image.h", "cox/wire.h", "cox/rpc.h", "cox/tls.h", "cox/json.h", "cox/json/*",
           "cox/config.h", "cox/yaml.h", "cox/wire/*", "proto", "protobuf-c", "jansson", "event", "curl", "zlib", "crypto", "jq",
           "seccomp",
           "cox/schema.h", "archive"]
PARTS = {
    "include/cox/base": ["libc", "cox/base/*"],
    "include/cox": ["libc", "cox/*", "jansson", "protobuf-c", "proto"],
    "lib/base": ["libc", *BASE],
    "lib/task": [*PURE_LIBC, "ctype.h", "errno.h", "float.h", "math.h", "stdarg.h", "stdio.h", "stdlib.h",
                 *BASE, "cox/task.h", "cox/image.h", "cox/cron.h", "cox/json.h", "cox/json/*", "cox/schema.h",
                 "jansson", "crypto"],
    "lib/cron": [*PURE_LIBC, *BASE, "cox/cron.h"],
    "lib/json": ["libc", *BASE, "cox/json.h", "cox/json/*", "jansson"],
    "lib/yaml": ["libc", *BASE, "cox/yaml.h", "cox/json.h", "yaml"],
    "lib/config": ["libc", *BASE, "cox/config.h", "cox/yaml.h", "cox/json.h"],
    "lib/turn": [*PURE_LIBC, *BASE, "cox/schema.h", "cox/turn.h", "cox/json.h"],
    "lib/schema": [*PURE_LIBC, *BASE, "cox/schema.h", "cox/json.h"],
    "lib/wire": ["libc", *BASE, "cox/*", "protobuf-c", "proto", "jansson"],
    "lib/agent": ["libc", *BASE, "cox/agent.h", "cox/attach.h", "proto", "protobuf-c"],
    "lib/tls": ["libc", *BASE, "cox/tls.h", "crypto"],
    "lib/rpc": ["libc", *BASE, "cox/rpc.h", "cox/rpc/*", "cox/tls.h", "grpc", "protobuf-c", "proto"],
    "orchestrator": ["libc", "cox/*", "proto", "protobuf-c", "jansson", "yaml", "event", "curl", "zlib",
                     "crypto", "orchestrator/access", "orchestrator/fleet", "orchestrator/api", "orchestrator/edge", "orchestrator/inference"],
    "orchestrator/engine": [*PURE_LIBC, *BASE, "cox/engine.h", "cox/engine_stats.h", "cox/engine/*", "cox/task.h", "cox/image.h", "cox/cron.h",
                            "cox/json.h"],
    "orchestrator/store": ["libc", *BASE, "cox/store.h", "cox/store/*", "sqlite", "pq", "curl", "zlib", "crypto"],
    "orchestrator/inference": ["libc", *BASE, "cox/agent.h", "cox/attach.h", "cox/schema.h", "cox/wire.h", "cox/config.h", "cox/json.h", "cox/json/*", "cox/yaml.h", "proto", "protobuf-c",
                               "jansson", "event", "curl", "zlib", "crypto", "xxhash"],
    "orchestrator/access": ["libc", *BASE, "cox/rpc.h", "cox/json.h", "cox/yaml.h", "protobuf-c", "crypto"],
    "orchestrator/fleet": ["libc", "cox/*", "proto", "protobuf-c", "orchestrator"],
    "orchestrator/api": ["libc", "cox/*", "proto", "protobuf-c", "jansson", "event", "zlib", "crypto",
                         "orchestrator", "orchestrator/access", "orchestrator/fleet", "orchestrator/inference"],
    "orchestrator/edge": ["libc", *BASE, "cox/rpc.h", "cox/tls.h", "cox/wire.h", "cox/json.h", "proto", "protobuf-c", "event",
                          "zlib", "orchestrator/inference"],
    "worker": PROGRAM,
    "cli": PROGRAM,
    "tests": ["libc", "cox/*", "proto", "protobuf-c", "jansson", "yaml", "event", "curl", "zlib", "crypto",
              "sqlite", "cmocka", "archive", "tests*", "lib*", "orchestrator*", "worker*", "cli*"],
    "docs/examples": ["libc"],
}
LIBRARIES = {  # the first that fits
    "proto": r".*\.pb-c\.h",
    "event": r"event2/.*|ev(ent|http|dns|util)\.h",
    "grpc": r"grpc(\+\+|pp)?/.*",
    "protobuf-c": r"protobuf-c/.*",
    "curl": r"curl/.*",
    "sqlite": r"sqlite3(ext)?\.h",
    "pq": r"(postgresql/)?libpq.*",
    "jansson": r"jansson(_config)?\.h",
    "yaml": r"yaml\.h",
    "crypto": r"openssl/.*",
    "zlib": r"z(lib|conf)\.h",
    "archive": r"archive(_entry)?\.h",
    "jq": r"j[qv]\.h",
    "seccomp": r"seccomp\.h",
    "cmocka": r"cmocka\.h",
    "xxhash": r"xxhash\.h",
}


def part_of(path):
    fits = [p for p in PARTS if path.startswith(p + "/")]
    return max(fits, key=len, default=None)


def library_of(header):
    return next((name for name, pattern in LIBRARIES.items() if re.fullmatch(pattern, header)), None)


def resolve(name, header, known):
    """The repository path of an included header, or None when it is not one of ours."""
    for candidate in (os.path.join(os.path.dirname(name), header), os.path.join("include", header), header):
        if os.path.normpath(candidate) in known:
            return os.path.normpath(candidate)
    return None


def allows(rules, subject):
    return any(subject == r or (r.endswith("*") and subject.startswith(r[:-1])) for r in rules)


def why_not(part, header, target):
    """The complaint about one include, or None."""
    rules = PARTS[part]
    if target is None:
        library = library_of(header)
        if library:
            return None if library in rules else f"{part} may not use {library} ({header})"
        if header.startswith("cox/"):
            return f"there is no {header}"
        return None if "libc" in rules or header in rules else f"{part} may not use {header}"
    if target.startswith("include/"):
        public = target[len("include/"):]
        return None if allows(rules, public) else f"{part} may not use {public}"
    owner = part_of(target)
    if owner == part or (owner and allows(rules, owner)):
        return None
    return f"{part} may not look inside {owner or os.path.dirname(target)} ({target})"


def complaints(files, read):
    known = set(files)
    for name in files:
        if not name.endswith((".c", ".h")):
            continue
        part = part_of(name)
        if part is None:
            yield f"{name}: no part of the house holds this folder (see PARTS in tests/tidy/includes.py)"
            continue
        for number, line in enumerate(read(name).split("\n"), 1):
            match = re.match(r"\s*#\s*include\s*[<\"]([^>\"]+)[>\"]", line)
            complaint = match and why_not(part, match.group(1), resolve(name, match.group(1), known))
            if complaint:
                yield f"{name}:{number}: {complaint}"
