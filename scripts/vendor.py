"""The second half of scripts/vendor: prunes a folder of `cargo vendor` and prints debian/copyright. Reads `cargo metadata` from its input."""

import json
import pathlib
import re
import shutil
import sys
import tomllib

COMPILED = {".a", ".dll", ".dylib", ".exe", ".lib", ".o", ".obj", ".so", ".wasm"}

HEADER = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: dqlite-rs
Source: the repository that this source package was made from (scripts/deb)
Comment:
 Written by scripts/vendor. The folder vendor/ holds the crates of Cargo.lock;
 the library's packages contain compiled code of those that are not only for
 tests. Of crates for other systems than Linux only the manifest is kept.
 .
 Names and interface are those of Canonical's dqlite, none of whose code is
 here.

Files: *
Copyright: the authors of this library
License: MIT or Apache-2.0
"""

# Texts that Debian does not carry in /usr/share/common-licenses. Only those that a Files paragraph names are printed.
TEXTS = {
    "MIT": """\
Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.""",
    "Apache-2.0": """\
Licensed under the Apache License, Version 2.0. On Debian systems its full
text is in /usr/share/common-licenses/Apache-2.0.""",
    "MPL-2.0": """\
Subject to the terms of the Mozilla Public License, Version 2.0. On Debian
systems its full text is in /usr/share/common-licenses/MPL-2.0.""",
    "Unicode-3.0": """\
Permission is hereby granted, free of charge, to any person obtaining a copy
of data files and any associated documentation (the "Data Files") or software
and any associated documentation (the "Software") to deal in the Data Files or
Software without restriction, including without limitation the rights to use,
copy, modify, merge, publish, distribute, and/or sell copies of the Data Files
or Software, and to permit persons to whom the Data Files or Software are
furnished to do so, provided that either (a) this copyright and permission
notice appear with all copies of the Data Files or Software, or (b) this
copyright and permission notice appear in associated Documentation.

THE DATA FILES AND SOFTWARE ARE PROVIDED "AS IS", WITHOUT WARRANTY OF ANY
KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT OF THIRD
PARTY RIGHTS.

IN NO EVENT SHALL THE COPYRIGHT HOLDER OR HOLDERS INCLUDED IN THIS NOTICE BE
LIABLE FOR ANY CLAIM, OR ANY SPECIAL INDIRECT OR CONSEQUENTIAL DAMAGES, OR ANY
DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN
CONNECTION WITH THE USE OR PERFORMANCE OF THE DATA FILES OR SOFTWARE.

Except as contained in this notice, the name of a copyright holder shall not
be used in advertising or otherwise to promote the sale, use or other dealings
in these Data Files or Software without prior written authorization of the
copyright holder.""",
}


def drop_files(crate, unwanted):
    """Deletes files of a vendored crate that `unwanted` picks, and takes them out of what cargo checks."""
    checksums = crate / ".cargo-checksum.json"
    listing = json.loads(checksums.read_text())
    for path in list(crate.rglob("*")):
        name = path.relative_to(crate).as_posix()
        if path.is_file() and path != checksums and unwanted(name):
            path.unlink()
            listing["files"].pop(name, None)
    for path in sorted((path for path in crate.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    checksums.write_text(json.dumps(listing, sort_keys=True, separators=(",", ":")))


def keep_manifest(crate):
    """Leaves the manifest of a crate that is never compiled, and an empty library, without which cargo refuses the manifest."""
    checksums = crate / ".cargo-checksum.json"
    package = json.loads(checksums.read_text())["package"]
    manifest = (crate / "Cargo.toml").read_bytes()
    library = tomllib.loads(manifest.decode()).get("lib", {}).get("path", "src/lib.rs")
    shutil.rmtree(crate)
    (crate / library).parent.mkdir(parents=True)
    (crate / library).write_bytes(b"")
    (crate / "Cargo.toml").write_bytes(manifest)
    checksums.write_text(json.dumps({"files": {}, "package": package}))


def holders(crate, manifest):
    """Who a crate's licence files name, else its manifest's authors."""
    found = []
    for path in sorted(crate.iterdir()):
        if path.is_file() and re.match(r"(?i)(licen[cs]e|copying|copyright|notice)", path.name):
            for line in path.read_text(errors="replace").splitlines():
                line = line.strip().rstrip(".")
                if re.match(r"(?i)copyright\s+(\(c\)|\N{COPYRIGHT SIGN}|[0-9]{4})", line) and not re.search(r"[\[{]|\\", line):
                    name = re.sub(r"(?i)^copyright\s*(\(c\)|\N{COPYRIGHT SIGN})?\s*", "", line).strip(" ,")
                    if re.search(r"[^\W\d]", name) and name not in found:
                        found.append(name)
    if not found:
        found = [author.split(" <")[0] for author in manifest.get("authors", [])]
    return found or [f"the authors of the crate {manifest['name']}"]


def deb_licence(expression):
    """An SPDX expression in debian/copyright's words: `or` is weaker than `and`."""
    expression = expression.replace("/", " OR ")
    expression = re.sub(r"Apache-2.0 WITH LLVM-exception OR ", "", expression)
    both = re.fullmatch(r"\((.*) OR (.*)\) AND (.*)", expression)
    if both:
        expression = f"{both[1]} AND {both[3]} OR {both[2]} AND {both[3]}"
    # One of the choices is enough: take those whose text is carried.
    choices = [choice.strip() for choice in expression.split(" OR ")]
    carried = [choice for choice in choices if all(name in TEXTS for name in choice.split(" AND "))]
    if not carried:
        sys.exit(f"scripts/vendor.py has no text for the licence {expression}")
    return " or ".join(sorted(carried, reverse=True)).replace(" AND ", " and ")


def paragraph(text):
    return "\n".join(" " + (line or ".") for line in text.splitlines())


def main():
    folder = pathlib.Path(sys.argv[1])
    compiled = {f"{p['name']}-{p['version']}" for p in json.load(sys.stdin)["packages"]}
    print(HEADER)
    names = {"MIT", "Apache-2.0"}
    for crate in sorted(folder.iterdir()):
        manifest = tomllib.loads((crate / "Cargo.toml").read_text())["package"]
        copyright_lines = holders(crate, manifest)
        if crate.name not in compiled:
            keep_manifest(crate)
        elif manifest["name"] == "libsqlite3-sys":
            drop_files(crate, lambda name: name.startswith("sqlcipher/") or re.match(r"sqlite3/.*\.(c|h)$", name))
        else:
            drop_files(crate, lambda name: pathlib.PurePath(name).suffix in COMPILED)
        licence = deb_licence(manifest["license"])
        names.update(re.split(r" (?:or|and) ", licence))
        print(f"Files: vendor/{crate.name}/*")
        print("Copyright: " + "\n           ".join(copyright_lines))
        print(f"License: {licence}\n")
    print("\n\n".join(f"License: {name}\n{paragraph(TEXTS[name])}" for name in sorted(names)))


main()
