#!/usr/bin/env python3
"""go-dqlite's own dqlite-benchmark, unchanged, on this library and upstream's: go.md and go.csv in a folder.

Three nodes, each a process of the program; the first, which leads, is also the client, and its load starts when all three are in the
cluster. Every run has a new cluster, libraries take turns. The program writes each latency to files; those of the first
second are left out, and those from before all three are voters.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cluster import HOST, OURS, Failure, Library, Processes, Results, end_on_signals, free_ports, go, quantile, ratio_to_best, upstream_libraries

MODULE = "github.com/canonical/go-dqlite/v3"
VERSION = "v3.0.4"
# go-dqlite v3 makes no node with an older one.
UPSTREAM_LEAST = [1, 17]
NODES = 3
WORKLOADS = {"kvwrite": "inserts of 1 KiB", "kvreadwrite": "half reads, half inserts"}
# Value of GO_DQLITE_MULTITHREAD: without, go-dqlite puts SQLite into single-thread mode.
MODES = {"single": ("0", "single-thread"), "multi": ("1", "multi-thread")}
WORKS = {"exec": "inserts", "query": "reads"}
# A file of results: counts and names, then a line for each operation, then the errors. One of them is no failure.
HEADER_LINES = 6
CUT = "context deadline exceeded"
WARM_UP_NS = 1_000_000_000
# Longest wait for the cluster, and for the end of a run after its time.
START_SECONDS = 90
DONE = "Benchmark done"
# Printed by a node that is not the client, when it is in the cluster and has its vote.
VOTES = "Benchmark client ready"


def build(folder, header, library):
    """The program, through cgo."""
    program = folder / f"dqlite-benchmark-{VERSION}"
    found = json.loads(go(["mod", "download", "-json", f"{MODULE}@{VERSION}"], folder, stdout=subprocess.PIPE).stdout)
    source = folder / f"go-dqlite-{VERSION}"
    if not source.exists():
        partial = source.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        # The module's own files cannot be written; go wants to complete its go.sum.
        shutil.copytree(found["Dir"], partial)
        subprocess.run(["chmod", "-R", "u+w", str(partial)], check=True)
        partial.rename(source)
    settings = {
        "CGO_ENABLED": "1", "CGO_CFLAGS": f"-I{header}", "CGO_LDFLAGS": f"-L{library}", "CGO_LDFLAGS_ALLOW": "-Wl,-z,now",
    }
    go(["build", "-tags", "libsqlite3", "-o", program, "./cmd/dqlite-benchmark"], source, settings)
    return program


def run(program, library, work, mode, workload, workers, seconds):
    """One run: what `read` makes of it."""
    addresses = [f"{HOST}:{port}" for port in free_ports(NODES)]
    environment = {**library.environment, "GO_DQLITE_MULTITHREAD": MODES[mode][0]}
    driver = [
        "--driver", "--cluster", ",".join(addresses), "--cluster-timeout", START_SECONDS, "--duration", seconds, "--workers", workers,
        "--workload", workload,
    ]
    started = []
    with Processes(work) as processes:
        for number, address in enumerate(addresses):
            roles = driver if number == 0 else ["--join", addresses[0]]
            command = [*library.prefix, program, "--db", address, "--dir", work / str(number), *roles]
            started.append(processes.start(command, f"{number}.log", environment))
        for number in range(1, NODES):
            processes.wait_for(started[number], f"{number}.log", VOTES, START_SECONDS)
        complete = time.time_ns()
        processes.wait_for(started[0], "0.log", DONE, START_SECONDS + seconds + 60)
        return read(next((work / "0").rglob("results")), complete, seconds)


def read(folder, complete, seconds):
    """What the files say of the time from the warm-up, and from when all nodes had votes, to the end: that time in seconds, latencies in ms
    by the kind of work, and how many operations failed in the whole run, those that its end cut not counted."""
    found = {work: [] for work in WORKS}
    failed = 0
    for file in folder.iterdir():
        work = file.name.split("-")[1]
        lines = file.read_text().splitlines()
        errors = lines.index("errors")
        failed += sum(1 for line in lines[errors + 1:] if line and not line.endswith(CUT))
        for line in filter(None, lines[HEADER_LINES:errors]):
            start, latency = line.split()
            found[work].append((int(start), float(latency)))
    starts = [start for samples in found.values() for start, _ in samples]
    if not starts:
        return float(seconds), found, failed
    begin = max(min(starts) + WARM_UP_NS, complete)
    end = min(starts) + seconds * 1_000_000_000
    if end - begin < WARM_UP_NS / 2:
        raise Failure("the nodes had their votes too late")
    for work, samples in found.items():
        found[work] = sorted(latency for start, latency in samples if begin < start + latency * 1e6 < end)
    return (end - begin) / 1e9, found, failed


def record(results, contender, name, workload, measured):
    seconds, found, failed = measured
    for work, text in WORKS.items():
        if work == "query" and workload == "kvwrite":
            continue
        latencies = found[work]
        results.add(f"{name}: {text} per second", contender, len(latencies) / seconds)
        for share, word in ((0.5, "p50"), (0.99, "p99")):
            results.add(f"{name}: {text}, {word} us", contender, quantile(latencies, share) * 1000)
    results.add(f"{name}: failed in a run", contender, failed)


def page(results, arguments):
    def ratio(measurement, medians):
        return "-" if measurement.endswith("failed in a run") else ratio_to_best(measurement, medians)
    return (
        f"dqlite-benchmark of go-dqlite {VERSION}, {NODES} nodes, {arguments.rounds} rounds of {arguments.seconds} s, the first second left out; "
        "medians (lowest..highest). The client is in the leader's process. It does not try again what fails.\n\n"
        + results.markdown("ours / best upstream", ratio)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for go.md and go.csv")
    parser.add_argument("header", type=Path, help="folder of dqlite.h")
    parser.add_argument("library", type=Path, help="folder of libdqlite.so")
    parser.add_argument("--upstream", type=Path, required=True, help="folder of tests/upstream/fetch.sh")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="time of a run, of which the first second is left out")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES), help="of SQLite's threads; go-dqlite's default is single")
    parser.add_argument("--only", default="", help="only libraries whose names have this text, and this one")
    arguments = parser.parse_args()
    if arguments.seconds < 2:
        parser.error("a run takes 2 s at least")
    end_on_signals()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    program = build(output, arguments.header.resolve(), arguments.library.resolve())
    libraries = [Library(OURS, arguments.library)]
    libraries += [library for library in upstream_libraries(arguments.upstream, UPSTREAM_LEAST) if arguments.only in library.name]
    results = Results([library.name for library in libraries])
    for number in range(1, arguments.rounds + 1):
        for mode, workload, workers in itertools.product(arguments.mode, arguments.workload, arguments.workers):
            name = f"{MODES[mode][1]}, {WORKLOADS[workload]}, {workers} workers"
            for library in libraries:
                print(f"round {number} of {arguments.rounds}: {library.name}: {name}", file=sys.stderr, flush=True)
                try:
                    measured = run(program, library, output / "work-go", mode, workload, workers, arguments.seconds)
                    record(results, library.name, name, workload, measured)
                except (Failure, StopIteration) as error:
                    results.fail(library.name, f"round {number}, {name}", error)
            (output / "go.md").write_text(page(results, arguments))
            (output / "go.csv").write_text(results.csv())
    print(page(results, arguments), end="")
    sys.exit(results.exit_code())


if __name__ == "__main__":
    main()
