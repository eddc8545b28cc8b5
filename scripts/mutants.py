#!/usr/bin/env python3
"""Mutation testing with one build: `make mutants`, docs/testing.md. `mutants_tree.py` builds the sources with all mutants in them.

Each test runs alone without a mutant and tells which functions it reaches; then each mutant is judged by the tests that reach its
function. It is killed when a test fails twice with it and then passes without it, or when tests take too long with it and not
without it. What came out is in target/mutants/outcomes.json, what is left in survivors.txt beside it. testdata/mutants.txt has
those that are accepted, with the reason; any other makes the exit status 1.
"""

import argparse
import collections
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mutants_tree import PLACE, PROGRAMS, ROOT, Failure, build, list_mutants

ACCEPTED = ROOT / "testdata/mutants.txt"
OUTCOMES = PLACE / "outcomes.json"
KINDS = ["killed", "timed out", "unviable", "survived", "not reached", "not run"]
LEFT = ["survived", "not reached", "not run"]
# Test programs that look at sources or exported names: no mutant changes what they see.
BLIND = {"layering", "waits", "conformance", "exports", "header", "portable", "decoders", "pkgconfig"}
# A test that takes longer than this without a mutant judges none; a program may take longer.
TEST_SECONDS_MAX = 20
PROGRAM_SECONDS_MAX = 40
# Tests of one program run together as long as they take less than this; the first ones are few, since most mutants die of them.
BATCH_SECONDS = [0.1, 0.4, 1.5]
BATCH_TESTS = 40
# Time that a hang is given beyond what the tests take, unless --patience says otherwise.
PATIENCE_SECONDS = 10
# How often a batch is tried on a machine that is too busy to tell.
TRIES = 3
MEMORY_BYTES = 12 << 30
FILE_BYTES = 2 << 30


class Judge:
    """A test, or a program that fails when it finds something wrong."""

    def __init__(self, program, folder, name):
        self.program, self.folder, self.name = program, folder, name
        self.label = re.sub(r"-[0-9a-f]{16}$", "", Path(program).name)
        self.seconds, self.reached = None, frozenset()

    def command(self, judges):
        if self.name is None:
            return [self.program, *PROGRAMS[self.label]]
        return [self.program, "--exact", "--test-threads=1", *(judge.name for judge in judges)]

    def __str__(self):
        return self.label + (f" {self.name}" if self.name else "")


def names(program, *only):
    said = subprocess.run([program, "--list", "--format=terse", *only], stdout=subprocess.PIPE, check=True, text=True).stdout
    return set(re.findall(r"(?m)^(.*): test$", said))


def find_judges(programs):
    judges = []
    for made in programs:
        first = Judge(made["executable"], Path(made["manifest_path"]).parent, None)
        if made["profile"]["test"] and first.label not in BLIND:
            tests = names(first.program) - names(first.program, "--ignored")
            judges += [Judge(first.program, first.folder, name) for name in sorted(tests)]
        elif not made["profile"]["test"] and first.label in PROGRAMS:
            judges.append(first)
    return judges


def run(judges, mutant=0, reach="", seconds=None):
    """Runs tests of one program. How it went (True: they pass, None: not in time), which of them failed, and how long it took."""
    with tempfile.TemporaryDirectory(dir=PLACE / "tmp", ignore_cleanup_errors=True) as temporary:
        environment = dict(os.environ, DQLITE_MUTANT=str(mutant), DQLITE_MUTANT_REACH=str(reach), TMPDIR=temporary)
        with open(Path(temporary) / "out", "w+b") as out:
            begin = time.monotonic()
            process = subprocess.Popen(judges[0].command(judges), cwd=judges[0].folder, env=environment, stdout=out,
                                       stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                passes = process.wait(seconds) == 0
            except subprocess.TimeoutExpired:
                passes = None
            took = time.monotonic() - begin
            try:
                # It, and whatever it has started.
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            out.seek(0)
            said = out.read(4 << 20).decode(errors="replace")
    failed = set(re.findall(r"(?m)^test (\S+) .*\bFAILED$", said))
    return passes, [judge for judge in judges if judge.name in failed] or judges, took


def measure(judge):
    """Finds out how long a test takes and what it reaches, unless that is known of this program. Why it cannot judge, if it cannot."""
    known = PLACE / "reach" / f"{Path(judge.program).name}-{os.stat(judge.program).st_mtime_ns}-{judge.name}".replace("/", "-")
    if known.exists():
        judge.seconds, reached, why = json.loads(known.read_text())
        judge.reached = frozenset(reached)
        return why
    limit = TEST_SECONDS_MAX if judge.name else PROGRAM_SECONDS_MAX
    with tempfile.TemporaryDirectory() as folder:
        reach = Path(folder) / "reach"
        passes, _, judge.seconds = run([judge], reach=reach, seconds=limit * 1.25)
        judge.reached = frozenset(map(int, reach.read_text().split())) if reach.exists() else frozenset()
    why = "fails" if passes is False else None if passes and judge.seconds <= limit else "takes too long"
    known.write_text(json.dumps([judge.seconds, sorted(judge.reached), why]))
    return why


def batches(judges):
    batch, limits = [], iter(BATCH_SECONDS)
    limit = next(limits)
    for judge in judges:
        together = batch and batch[0].program == judge.program and judge.name and len(batch) < BATCH_TESTS
        if batch and not (together and sum(one.seconds for one in batch) + judge.seconds < limit):
            yield batch
            batch, limit = [], next(limits, limit)
        batch.append(judge)
    if batch:
        yield batch


def tried(batch, number, patience):
    """What a batch says of a mutant, and which of its tests; None: nothing."""
    limit = patience + 5 * sum(judge.seconds for judge in batch)
    for _ in range(TRIES):
        passes, failed, _ = run(batch, number, seconds=limit)
        if passes is False:
            again, failed, _ = run(failed, number, seconds=limit)
            if again is True:
                return None
        elif passes is True:
            return None
        # Without it this must not happen: else the machine is too busy to tell.
        if run(failed, seconds=limit)[0] is True:
            return "timed out" if passes is None else "killed", failed[0]
    return None


def verdict(mutant, judges, killers, patience):
    """What becomes of a mutant, and by which test."""
    reaching = [judge for judge in judges if mutant.place in judge.reached]
    # What killed others of the same function comes first, then what reaches little else.
    known = killers[mutant.place]
    reaching.sort(key=lambda judge: (-known[judge], judge.seconds > BATCH_SECONDS[-1], judge.program, len(judge.reached), judge.seconds))
    for batch in batches(reaching):
        found = tried(batch, mutant.number, patience)
        if found:
            known[found[1]] += 1
            return found[0], str(found[1])
    return ("survived" if reaching else "not reached"), None


def run_all(viable, judges, outcomes, options):
    killers = collections.defaultdict(collections.Counter)
    with ThreadPoolExecutor(options.jobs) as pool:
        unfit = list(zip(judges, pool.map(measure, judges)))
        for judge, why in unfit:
            if why:
                print(f"does not judge: {judge}, which {why} ({judge.seconds:.1f} s)")
        judges = [judge for judge, why in unfit if not why and judge.seconds <= options.seconds_max]
        print(f"{len(viable)} mutants, {len(judges)} tests judge", flush=True)
        begin, left = time.monotonic(), 0
        running = {pool.submit(verdict, mutant, judges, killers, options.patience): mutant for mutant in viable}
        for done, future in enumerate(as_completed(running), 1):
            outcomes[running[future].name] = future.result()
            left += future.result()[0] in LEFT
            if done % 20 == 0 or done == len(viable):
                OUTCOMES.write_text(json.dumps(outcomes, indent=1))
                minutes = (time.monotonic() - begin) / 60
                print(f"{done} of {len(viable)} after {minutes:.0f} min, {left} left, {minutes / done * (len(viable) - done):.0f} min to go", flush=True)


def report(mutants, outcomes):
    """Prints and writes what came out. The mutants that are left and that nobody has accepted."""
    counts, left = collections.defaultdict(collections.Counter), []
    for mutant in mutants:
        outcome = outcomes.get(mutant.name, ["not run"])[0]
        counts["/".join(mutant.file.split("/")[:2])][outcome] += 1
        if outcome in LEFT:
            left.append((mutant, outcome))
    print(f"| folder | mutants | {' | '.join(KINDS)} |\n|---|{'---|' * (len(KINDS) + 1)}")
    for folder, count in sorted(counts.items()):
        print(f"| {folder} | {count.total()} | {' | '.join(str(count[kind]) for kind in KINDS)} |")
    (PLACE / "survivors.txt").write_text("".join(f"{mutant} ({outcome})\n" for mutant, outcome in left))
    lines = ACCEPTED.read_text().split("\n") if ACCEPTED.exists() else []
    accepted = {line for line in lines if line and not line.startswith("#")}
    for name in sorted(accepted - {mutant.name for mutant, _ in left}):
        if any(name.startswith(f"{folder}/") for folder in counts):
            print(f"accepted, and not left any more: {name}")
    return [mutant for mutant, _ in left if mutant.name not in accepted]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", help="folders to mutate; without any those of .cargo/mutants.toml")
    parser.add_argument("--tool", default="cargo-mutants", help="the program cargo-mutants")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rest", action="store_true", help="run only what was left the last time, or not run")
    parser.add_argument("--seconds-max", type=float, default=PROGRAM_SECONDS_MAX, help="leave out tests that take longer, for a first look")
    parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS, help="seconds that a hang is given beyond what the tests take")
    parser.add_argument("--unit", action="store_true", help="build and judge by the unit tests of dqlite alone")
    parser.add_argument("--judges", default="", help="a regular expression: only tests whose program and name it matches")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    options = parser.parse_args()
    mutants = list_mutants(options.tool, options.folders)
    if options.list:
        print(*mutants, sep="\n")
        return 0
    for folder in ("tmp", "reach"):
        (PLACE / folder).mkdir(parents=True, exist_ok=True)
    outcomes = json.loads(OUTCOMES.read_text()) if options.rest and OUTCOMES.exists() else {}
    wanted = [mutant for mutant in mutants if outcomes.get(mutant.name, ["not run"])[0] in LEFT]
    programs, viable = build(wanted, options.unit)
    outcomes |= {mutant.name: ("unviable", None) for mutant in wanted if mutant.function and mutant not in viable}
    for limit, value in [(resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0)]:
        resource.setrlimit(limit, (value, value))
    judges = [judge for judge in find_judges(programs) if re.search(options.judges, str(judge))]
    run_all(viable, judges, outcomes, options)
    new = report(mutants, outcomes)
    print(*(f"neither killed nor accepted: {mutant}" for mutant in new), sep="\n")
    return 1 if new else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"mutants: {failure}")
