"""One build with every mutant that cargo-mutants lists, each behind a switch: for `mutants.py`.

In a copy of the sources (target/mutants/tree) the body of a function that has mutants is a `match` over the number in DQLITE_MUTANT:
one arm with the body as it is, and one with the changed body for each mutant. Mutants that do not compile are taken out, as rustc's
errors name them. With DQLITE_MUTANT_REACH the functions that are reached are written to a file.
"""

import collections
import json
import os
import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "target/mutants"
TREE = PLACE / "tree"
# Programs that judge beside the tests, and what they are called with: histories of the machine of sessions, and of whole clusters.
PROGRAMS = {"sessions": ["1", "4"], "histories": ["1", "4"]}
PACKAGES = ["--package=dqlite", "--package=dqlite-testing", "--package=dqlite-sim"]

SWITCH = """
#[allow(missing_docs)]
pub mod mutant_switch {
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static ACTIVE: OnceLock<(u32, Option<std::fs::File>)> = OnceLock::new();
    static SEEN: [AtomicBool; FUNCTIONS] = [const { AtomicBool::new(false) }; FUNCTIONS];

    pub fn at(function: usize) -> u32 {
        let (active, reach) = ACTIVE.get_or_init(|| {
            let active = std::env::var("DQLITE_MUTANT").ok().and_then(|number| number.parse().ok());
            let path = std::env::var_os("DQLITE_MUTANT_REACH").filter(|path| !path.is_empty());
            let open = |path| std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            (active.unwrap_or(0), path.map(open))
        });
        if let Some(mut reach) = reach.as_ref()
            && !SEEN[function].swap(true, Ordering::Relaxed)
        {
            reach.write_all(format!("{function}\\n").as_bytes()).unwrap();
        }
        *active
    }
}
"""

# Literals and comments, whose braces do not count.
OPAQUE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"|'(?:\\u\{[^}]*\}|\\x..|\\.|[^\\'\n])'""", re.DOTALL
)


class Failure(Exception):
    """What a run cannot go on without."""


class Mutant:
    def __init__(self, listed, number, starts, same):
        def offsets(span):
            return tuple(starts[span[end]["line"] - 1] + span[end]["column"] - 1 for end in ("start", "end"))

        self.number, self.file, self.replacement = number, listed["file"], listed["replacement"]
        self.position, self.change = re.fullmatch(r"[^:]+:(\d+:\d+): (.*)", listed["name"], re.DOTALL).groups()
        self.start, self.end = offsets(listed["span"])
        # None in a constant, which nothing can switch at run time.
        self.function = listed["function"] and offsets(listed["function"]["span"])
        # A name that stays when lines move.
        self.name = f"{self.file}: {self.change}"
        same[self.name] += 1
        if same[self.name] > 1:
            self.name += f" (number {same[self.name]})"
        self.place = None

    def __str__(self):
        return f"{self.file}:{self.position}: {self.change}"


def list_mutants(tool, folders):
    command = [tool, "mutants", "--list", "--json", "--dir", ROOT]
    listed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    listed = [mutant for mutant in listed if not folders or mutant["file"].startswith(tuple(folders))]
    starts = {}
    for file in {mutant["file"] for mutant in listed}:
        starts[file] = [0]
        for line in (ROOT / file).read_text().split("\n"):
            starts[file].append(starts[file][-1] + len(line) + 1)
    same = collections.Counter()
    return [Mutant(mutant, number, starts[mutant["file"]], same) for number, mutant in enumerate(listed, 1)]


def opening_brace(masked, closing):
    depth = 0
    for at in range(closing, -1, -1):
        depth += (masked[at] == "}") - (masked[at] == "{")
        if depth == 0:
            return at
    raise Failure(f"no brace opens the block that ends at {closing}")


def instrumented(text, mutants, number_of):
    """The text with a switch in each function that has mutants."""
    masked = OPAQUE.sub(lambda found: " " * len(found[0]), text)
    inside = collections.defaultdict(list)
    for mutant in mutants:
        inside[mutant.function].append(mutant)

    def render(start, end):
        parts, at = [], start
        for function in sorted(inside):
            if function[0] < at or function[1] > end:
                continue
            closing = function[1] - 1
            opening = opening_brace(masked, closing)
            # A function that asks for the number is not constant.
            const = re.search(r"\bconst (?=(unsafe )?fn\b)", masked[function[0] : opening])
            cut = (function[0] + const.start(), function[0] + const.end()) if const else (at, at)
            parts += [text[at : cut[0]], text[cut[1] : opening + 1], switch(function, opening + 1, closing)]
            at = closing
        return "".join(parts) + text[at:end]

    def switch(function, start, end):
        numbers = " | ".join(str(mutant.number) for mutant in inside[function])
        # Functions inside this one have switches of their own, unless this one is mutated.
        arms = [
            f"match crate::mutant_switch::at({number_of[function]}) {{",
            f"active_ if !matches!(active_, {numbers}) => {{{render(start, end)}}}",
        ]
        for mutant in inside[function]:
            pattern = "_" if mutant is inside[function][-1] else mutant.number
            changed = text[start : mutant.start] + mutant.replacement + " " + text[mutant.end : end]
            arms.append(f"{pattern} => {{ /*<{mutant.number}>*/{changed}\n/*</{mutant.number}>*/ }}")
        return "\n".join(arms) + "}"

    return render(0, len(text))


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            stdout=subprocess.PIPE, check=True)
    return {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}


def write_tree(sources, mutants):
    """Writes what is not there yet, so that cargo compiles no more than that."""
    by_file = collections.defaultdict(list)
    for mutant in mutants:
        by_file[mutant.file].append(mutant)
    functions = sorted({(mutant.file, mutant.function) for mutant in mutants})
    places = {function: number for number, function in enumerate(functions)}
    for mutant in mutants:
        mutant.place = places[mutant.file, mutant.function]
    for name, content in sources.items():
        if name in by_file:
            numbers = {function: number for (file, function), number in places.items() if file == name}
            content = instrumented(content.decode(), by_file[name], numbers).encode()
        elif name == "src/lib.rs":
            content += SWITCH.replace("FUNCTIONS", str(len(functions))).encode()
        path = TREE / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod((ROOT / name).stat().st_mode)
    for path in TREE.rglob("*"):
        if path.is_file() and path.relative_to(TREE).parts[0] != "target" and str(path.relative_to(TREE)) not in sources:
            path.unlink()


def cargo(*arguments, flags="--cap-lints=allow --cfg tokio_unstable"):
    """Runs cargo in the tree: the programs that it made, and the errors."""
    environment = dict(os.environ, RUSTFLAGS=flags, CARGO_PROFILE_DEV_DEBUG="0", CARGO_TARGET_DIR=str(TREE / "target"))
    command = [os.environ.get("CARGO", "cargo"), *arguments]
    process = subprocess.Popen(command, cwd=TREE, env=environment, stdout=subprocess.PIPE)
    messages = [json.loads(line) for line in process.stdout if line.startswith(b"{")]
    errors = [message["message"] for message in messages
              if message["reason"] == "compiler-message" and message["message"]["level"] == "error"]
    if process.wait() and not errors:
        raise Failure(f"{' '.join(command)}: exit status {process.returncode}")
    return [message for message in messages if message.get("executable")], errors


def arms(file):
    """The mutant of each line of a file that is in an arm of one."""
    lines, inside = {}, None
    path = TREE / file
    for number, text in enumerate(path.read_text().split("\n") if path.is_file() else [], 1):
        opened = re.search(r"/\*<(\d+)>\*/", text)
        inside = int(opened[1]) if opened else inside
        if inside:
            lines[number] = inside
        if "/*</" in text:
            inside = None
    return lines


def broken(errors):
    """The numbers of the mutants in which errors lie."""
    lines, found = {}, set()
    for error in errors:
        spans = sorted(error["spans"], key=lambda span: not span["is_primary"])
        # What a macro made lies where the macro is called, too.
        for span in spans:
            if span["expansion"]:
                spans.append(span["expansion"]["span"])
        for span in spans:
            file = span["file_name"]
            lines[file] = lines.get(file) or arms(file)
            if span["line_start"] in lines[file]:
                found.add(lines[file][span["line_start"]])
                break
        else:
            if spans:
                print(f"an error in no mutant: {error['rendered']}", flush=True)
    if not found:
        raise Failure("the sources do not compile, whatever mutants are left out")
    return found


def build_all():
    # Tests of processes load the shared object.
    programs, errors = cargo("build", "--lib", *(f"--bin={name}" for name in PROGRAMS), *PACKAGES, "--message-format=json")
    if not errors:
        tests, errors = cargo("test", "--no-run", *PACKAGES, "--message-format=json")
        programs += tests
    return programs, errors


def build_unit():
    # Dependencies are compiled as for everybody else, so that a copy of them may lie in the tree already.
    return cargo("rustc", "--package=dqlite", "--lib", "--profile=test", "--message-format=json", "--", "--cap-lints=allow", flags="")


def build(mutants, only_unit=False):
    """Takes out what does not compile, until all does. The test programs, and the mutants that are left."""
    # As they are now: they may be edited while this runs.
    sources = {name: (ROOT / name).read_bytes() for name in tracked()}
    viable = [mutant for mutant in mutants if mutant.function]
    while True:
        write_tree(sources, viable)
        begin = time.monotonic()
        programs, errors = build_unit() if only_unit else build_all()
        print(f"built in {time.monotonic() - begin:.0f} s with {len(viable)} mutants, {len(errors)} errors", flush=True)
        if not errors:
            return programs, viable
        out = broken(errors)
        viable = [mutant for mutant in viable if mutant.number not in out]
