#!/usr/bin/env python3
"""Runs the test suites of unchanged go-dqlite, all packages, on a libdqlite, and counts what passes.

Each version comes through the Go module proxy, is built through cgo against HEADER and LIBRARY, and runs in a network
namespace that has nothing but loopback, once with SQLite as go-dqlite sets it up (single-thread mode) and once with
GO_DQLITE_MULTITHREAD=1. A package with a test that fails runs again on upstream's newest library. Where upstream passes that
test, this run fails, unless the test has a time limit that a busy machine misses: then it passes alone five times in a row
here, and fails with upstream's library, too, when the processor is busy.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE = "github.com/canonical/go-dqlite"
VERSIONS = ["v1.11.9", "v1.22.0", "v2.0.1", "v3.0.4"]
# These two dial a public address. They use no library, and are never run.
NEVER = ["TestConnector_DialTimeout", "TestConnector_ContextCanceled"]
# Value of GO_DQLITE_MULTITHREAD, and how the table calls it.
MODES = {"unset": None, "1": "1"}
PACKAGE_SECONDS = 600
# A test that fails among others, and passes with upstream, must pass so often alone, and must fail with upstream at one of as
# many attempts beside so many busy processes, less nice than it by so much.
AGAIN = 5
BUSY_PROCESSES = 16
HURRIED_NICE = "9"
# Tests that pass with upstream because it elects late: changed like this, they must fail there, too. Nodes that the test before
# leaves behind have the addresses of this one's, and the ids; once they have a leader, they take its node in. Here that is at
# once, there after seconds, when the test is over and their directories have been removed.
ELECTED_LATE = {
    ("benchmark", "TestNew_ClusteredTimeout"): [
        ("benchmark/benchmark_test.go", "WithClusterTimeout(2)", "WithClusterTimeout(30)"),
        ("benchmark/benchmark_test.go", "os.RemoveAll(dir)", "_ = dir"),
    ],
}
# v1.11.9 asks raft's header for one constant, and wants to link a libraft of which it uses nothing.
RAFT_HEADER = "#define RAFT_NOCONNECTION 16\n"
# Upstream removed it in 1.18.3; suites of v1 and v2 do not link without.
DISK_MODE = "int dqlite_node_enable_disk_mode(void *n) { (void)n; return 1; }\n"


def run(command, **options):
    return subprocess.run(command, check=True, text=True, **options)


class Suite:
    """One version of go-dqlite, its test programs built."""

    def __init__(self, version, work, header, library):
        self.version = version
        self.folder = work / version
        self.programs = work / f"{version}-programs"
        self.programs.mkdir()
        self.header = header
        self.library = library
        self.stubs = work / "stubs"
        major = version.split(".")[0]
        self.module = MODULE if major == "v1" else f"{MODULE}/{major}"
        self.packages = []

    def environment(self):
        environment = dict(os.environ)
        environment.update(
            CGO_ENABLED="1",
            CGO_CFLAGS=f"-I{self.header} -I{self.stubs}",
            CGO_LDFLAGS=f"-L{self.library} -L{self.stubs}",
            CGO_LDFLAGS_ALLOW="-Wl,-z,now",
        )
        environment.pop("GOFLAGS", None)
        return environment

    def build(self):
        download = run(
            ["go", "mod", "download", "-json", f"{self.module}@{self.version}"],
            cwd=self.programs, env={**os.environ, "GOFLAGS": "-mod=mod"}, stdout=subprocess.PIPE,
        )
        shutil.copytree(json.loads(download.stdout)["Dir"], self.folder)
        run(["chmod", "-R", "u+w", str(self.folder)])
        listing = run(
            ["go", "list", "-mod=mod", "-tags", "libsqlite3", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./..."],
            cwd=self.folder, env=self.environment(), stdout=subprocess.PIPE,
        )
        for package in listing.stdout.split():
            name = package[len(self.module):].lstrip("/") or "."
            program = self.programs / (name.replace("/", "-") if name != "." else "root")
            self.compile(name, self.folder, program)
            self.packages.append((name, program))

    def compile(self, name, folder, program):
        run(
            ["go", "test", "-mod=mod", "-c", "-tags", "libsqlite3", "-o", str(program), f"./{name}"],
            cwd=folder, env=self.environment(),
        )

    def compile_changed(self, name, changes):
        """The test program of a package with a few words changed."""
        folder = self.programs / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        for file, old, new in changes:
            text = (folder / file).read_text(encoding="utf-8")
            if old not in text:
                raise SystemExit(f"{self.version}: {file} does not have {old}")
            (folder / file).write_text(text.replace(old, new), encoding="utf-8")
        program = self.programs / "changed-program"
        self.compile(name, folder, program)
        return program, folder / name


class Runner:
    """Runs a test program on a library, without a network."""

    def __init__(self, folders, loader=None, preload=None):
        self.folders = [str(folder) for folder in folders]
        self.loader = loader
        self.preload = preload

    def command(self, program, multithread, arguments):
        """Test programs talk to themselves: nothing but loopback is there."""
        settings = ["env", "-u", "GO_DQLITE_MULTITHREAD", "-u", "LIBDQLITE_TRACE"]
        if multithread is not None:
            settings = ["env", "-u", "LIBDQLITE_TRACE", f"GO_DQLITE_MULTITHREAD={multithread}"]
        if self.loader is None:
            settings.append("LD_LIBRARY_PATH=" + ":".join(self.folders))
            started = [str(program)]
        else:
            started = [str(self.loader), "--library-path", ":".join(self.folders)]
            if self.preload is not None:
                started += ["--preload", str(self.preload)]
            started.append(str(program))
        return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *settings, *started, *arguments]

    def run(self, program, folder, multithread, arguments, log, before=()):
        with tempfile.TemporaryDirectory() as temporary, open(log, "w", encoding="utf-8") as output:
            subprocess.run(
                [*before, *self.command(program, multithread, arguments)], cwd=folder, check=False,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": temporary}, timeout=PACKAGE_SECONDS + 60,
            )
        return read_verdicts(log)


def read_verdicts(log):
    """Verdicts of the tests, without those of their parts, and the names of tests that began and never ended."""
    verdicts = {}
    begun = []
    for line in open(log, encoding="utf-8", errors="replace"):
        # Other output may stand before it on the line.
        for name in re.findall(r"=== RUN   ([^/\s]+)$", line.rstrip()):
            begun.append(name)
        for verdict, name in re.findall(r"--- (PASS|FAIL|SKIP): ([^/\s]+) \(", line):
            verdicts[name] = verdict
    for name in begun:
        verdicts.setdefault(name, "FAIL")
    return verdicts


def upstream_runner(root, suite, work):
    """A library of tests/upstream/fetch.sh, with the C library that it was built for."""
    places = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu"]
    folders = [root / place for place in places if (root / place).is_dir()]
    names = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"]
    loader = next(folder / name for folder in folders for name in names if (folder / name).exists())
    preload = None
    if suite.version.split(".")[0] in ("v1", "v2"):
        preload = work / "disk-mode.so"
        if not preload.exists():
            run(["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(preload)], input=DISK_MODE)
    return Runner(folders, loader, preload)


def list_tests(program, runner, folder, log):
    runner.run(program, folder, None, ["-test.list", "."], log)
    names = set(re.findall(r"^((?:Test|Example)\S*)$", Path(log).read_text(encoding="utf-8"), re.M))
    return names - set(NEVER)


def alone(test):
    """Flags of a test program that runs one test."""
    return ["-test.v", "-test.timeout", f"{PACKAGE_SECONDS}s", "-test.run", f"^{test}$", "-test.skip", f"^({'|'.join(NEVER)})$"]


def passes_alone(program, folder, multithread, ours, test, log):
    """Whether a test passes AGAIN times in a row."""
    for number in range(AGAIN):
        verdicts = ours.run(program, folder, multithread, alone(test), log.with_name(f"{log.stem}-{test}-alone.log"))
        if verdicts.get(test) != "PASS":
            print(f"    {test} alone: fails, attempt {number + 1}", flush=True)
            return False
    print(f"    {test} alone: passes {AGAIN} times of {AGAIN}", flush=True)
    return True


def fails_hurried(program, folder, multithread, upstream, test, log):
    """Whether a test fails with upstream's library on a machine that is busy: then its own limit is too short for one."""
    before = ["nice", "-n", HURRIED_NICE]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_PROCESSES)]
    try:
        for number in range(AGAIN):
            place = log.with_name(f"{log.stem}-{test}-hurried-upstream.log")
            verdicts = upstream.run(program, folder, multithread, alone(test), place, before)
            if verdicts.get(test) == "FAIL":
                print(f"    {test} with upstream's library on a busy machine: fails, attempt {number + 1}", flush=True)
                return True
    finally:
        for process in busy:
            process.kill()
            process.wait()
    print(f"    {test} with upstream's library on a busy machine: passes {AGAIN} times of {AGAIN}", flush=True)
    return False


def is_excused(program, folder, multithread, ours, upstream, test, log):
    """Whether a test that fails here and passes with upstream has only missed its own time limit."""
    return passes_alone(program, folder, multithread, ours, test, log) and fails_hurried(
        program, folder, multithread, upstream, test, log
    )


# conformance: c-api 14
# conformance: client-protocol K23, K24
def check_package(suite, name, program, mode, ours, arguments, logs):
    """Counts of one package in one mode, and the tests that fail here and pass with upstream."""
    folder = suite.folder if name == "." else suite.folder / name
    log = logs / f"{suite.version}-{mode}-{name.replace('/', '-')}.log"
    flags = ["-test.v", "-test.timeout", f"{PACKAGE_SECONDS}s", "-test.skip", f"^({'|'.join(NEVER)})$"]
    expected = list_tests(program, ours, folder, logs / "list.log")
    verdicts = ours.run(program, folder, MODES[mode], flags, log)
    # A package that was ended by a panic or a time-out leaves tests that never began: they count as failed.
    for test in expected - set(verdicts):
        verdicts[test] = "FAIL"
    failed = sorted(test for test, verdict in verdicts.items() if verdict == "FAIL")
    worse = []
    if failed:
        # The whole package again: a test may fail for what an earlier one that failed has left behind.
        upstream = upstream_runner(arguments.upstream, suite, logs)
        there = upstream.run(program, folder, MODES[mode], flags, logs / f"{log.stem}-upstream.log")
        for test in failed:
            verdict = there.get(test, "FAIL")
            print(f"    {test} fails; with upstream's {arguments.upstream.name}: {verdict}", flush=True)
            if verdict != "FAIL" and (name, test) in ELECTED_LATE:
                changed, place = suite.compile_changed(name, ELECTED_LATE[name, test])
                later = upstream.run(changed, place, MODES[mode], flags, logs / f"{log.stem}-changed-upstream.log")
                verdict = later.get(test, "PASS")
                print(f"    {test} with upstream's {arguments.upstream.name}, given the time that it needs to elect: {verdict}", flush=True)
            if verdict != "FAIL" and not is_excused(program, folder, MODES[mode], ours, upstream, test, log):
                worse.append(test)
    counts = [sum(1 for verdict in verdicts.values() if verdict == kind) for kind in ("PASS", "SKIP", "FAIL")]
    return counts, worse


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("header", type=Path, help="folder of dqlite.h")
    parser.add_argument("library", type=Path, help="folder of libdqlite.so")
    parser.add_argument("--upstream", type=Path, required=True, help="upstream's newest library, unpacked by tests/upstream/fetch.sh")
    parser.add_argument("--logs", type=Path, required=True, help="folder for what the tests print; made anew")
    parser.add_argument("--version", action="append", choices=VERSIONS, help="only this version; may be repeated")
    parser.add_argument("--mode", action="append", choices=list(MODES), help="only this GO_DQLITE_MULTITHREAD")
    parser.add_argument("--package", action="append", help="only this package, such as driver")
    arguments = parser.parse_args()
    for place in ("header", "library", "upstream", "logs"):
        setattr(arguments, place, getattr(arguments, place).resolve())
    shutil.rmtree(arguments.logs, ignore_errors=True)
    arguments.logs.mkdir(parents=True)

    worse = []
    totals = [0, 0, 0]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        (work / "stubs").mkdir()
        (work / "stubs" / "raft.h").write_text(RAFT_HEADER)
        run(["ar", "rc", str(work / "stubs" / "libraft.a")])
        for version in arguments.version or VERSIONS:
            suite = Suite(version, work, arguments.header, arguments.library)
            suite.build()
            ours = Runner([arguments.library])
            for mode in arguments.mode or MODES:
                for name, program in suite.packages:
                    if arguments.package and name not in arguments.package:
                        continue
                    counts, found = check_package(suite, name, program, mode, ours, arguments, arguments.logs)
                    totals = [total + count for total, count in zip(totals, counts)]
                    worse += [f"{version} {name} {test} (GO_DQLITE_MULTITHREAD {mode})" for test in found]
                    print(
                        f"go-dqlite {version}, GO_DQLITE_MULTITHREAD {mode}, {name}: {counts[0]} passed, {counts[1]} skipped, "
                        f"{counts[2]} failed" + (f", {len(found)} of them held against this library" if counts[2] else ""),
                        flush=True,
                    )
    print(f"go-dqlite, all suites: {totals[0]} passed, {totals[1]} skipped, {totals[2]} failed; never run: {', '.join(NEVER)}")
    for line in worse:
        print(f"fails here and passes with upstream: {line}")
    sys.exit(1 if worse or totals[0] == 0 else 0)


if __name__ == "__main__":
    main()
