#!/usr/bin/env python3
"""Turn a file into a C source that defines `const unsigned char SYMBOL[]` and `const size_t SYMBOL_len`.

usage: embed.py SYMBOL INPUT OUTPUT
"""
import sys


def main(symbol, source, target):
    with open(source, "rb") as f:
        data = f.read()
    with open(target, "w", encoding="ascii") as f:
        f.write("#include <stddef.h>\n\n")
        f.write(f"extern const unsigned char {symbol}[];\nextern const size_t {symbol}_len;\n")
        f.write(f"const size_t {symbol}_len = {len(data)};\nconst unsigned char {symbol}[] = {{\n")
        for at in range(0, len(data), 24):
            f.write(",".join(str(b) for b in data[at : at + 24]) + ",\n")
        f.write("0};\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
