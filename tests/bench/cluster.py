"""What the benchmarks in this folder share: processes on loopback that never outlive the program, libraries, and tables of medians."""

import ctypes
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"
PLACES = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu"]
LOADERS = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
OURS = "this library"


class Failure(Exception):
    """A run that gave no result."""


class Library:
    """A libdqlite that programs are run on: a folder, or an unpacked root of tests/upstream/fetch.sh with its own C library."""

    def __init__(self, name, folder):
        self.name = name
        folder = Path(folder).resolve()
        folders = [folder / place for place in PLACES if (folder / place).is_dir()]
        self.prefix = []
        self.environment = {}
        if folders:
            loader = next(place / name for place in folders for name in LOADERS if (place / name).exists())
            self.prefix = [str(loader), "--library-path", ":".join(map(str, folders))]
        else:
            self.environment = {"LD_LIBRARY_PATH": str(folder)}


def upstream_libraries(root, least):
    """Every version that is unpacked in a folder and not older than the least, oldest first."""
    def version(place):
        return [int(part) for part in place.name.split(".")]
    roots = sorted((complete.parent for complete in Path(root).glob("*/.complete")), key=version)
    return [Library(f"upstream {place.name}", place) for place in roots if version(place) >= least]


def tail(printed):
    """Its last error, or what it said last, on one line."""
    lines = [line for line in printed.splitlines() if line.strip()]
    return " ".join([line for line in lines if line.startswith("Error")][-1:] or lines[-3:])


def free_ports(count):
    """Ports of loopback that nothing has; another program may take one before it is used."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((HOST, 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def die_with_parent():
    """In a child: SIGKILL when this program ends, however that is."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Processes:
    """Processes in an empty folder; leaving the context kills them and removes it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.running = []

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *ignored):
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, command, log, environment=None):
        with open(self.folder / log, "wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})}, preexec_fn=die_with_parent,
            )
        self.running.append(process)
        return process

    def wait_for(self, process, log, text, seconds):
        """Until a process has printed a text."""
        end = time.monotonic() + seconds
        while True:
            printed = (self.folder / log).read_text(errors="replace")
            if text in printed:
                return
            if process.poll() is not None:
                raise Failure(f"{log}: ended with {process.returncode}: {tail(printed)}")
            if time.monotonic() > end:
                raise Failure(f"{log}: not within {seconds} s: {text}: {tail(printed)}")
            time.sleep(0.05)

    def cpu_seconds(self):
        """Of the processes that run, user and system."""
        ticks = 0
        for process in self.running:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Results:
    """Numbers of every round by what was measured and by contender, and the runs that gave none."""

    def __init__(self, contenders):
        self.contenders = contenders
        self.values = {}
        self.failures = []

    def add(self, measurement, contender, value):
        self.values.setdefault(measurement, {}).setdefault(contender, []).append(value)

    def fail(self, contender, what, error):
        print(f"{contender}, {what}: {error}", file=sys.stderr, flush=True)
        self.failures.append((contender, f"{contender}, {what}: {error}"))

    def markdown(self, last, ratio):
        """A Markdown table. A ratio of a row is that of the first contender to the best of the others."""
        lines = [f"| measurement | {' | '.join(self.contenders)} | {last} |", "|---" * (len(self.contenders) + 2) + "|"]
        for measurement, cells in self.values.items():
            medians = [median(cells.get(contender, [])) for contender in self.contenders]
            words = [spread(cells.get(contender, [])) for contender in self.contenders]
            lines.append(f"| {measurement} | {' | '.join(words)} | {ratio(measurement, medians)} |")
        lines += [""] + [f"Gave no result: {text}" for _, text in self.failures]
        return "\n".join(lines).strip() + "\n"

    def csv(self):
        lines = ["measurement,contender,number,value"]
        for measurement, cells in self.values.items():
            for contender, values in cells.items():
                lines += [f'"{measurement}","{contender}",{number},{value}' for number, value in enumerate(values, 1)]
        return "\n".join(lines) + "\n"

    def exit_code(self):
        """A failure of this library is one; others are told."""
        return 1 if any(contender == OURS for contender, _ in self.failures) or not self.values else 0


def median(values):
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def spread(values):
    """The median, with the lowest and the highest."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    middle = statistics.median(known)
    digits = 2 if middle < 10 else 1 if middle < 100 else 0
    text = f"{middle:.{digits}f}"
    return text if min(known) == max(known) else f"{text} ({min(known):.{digits}f}..{max(known):.{digits}f})"


def ratio_to_best(measurement, medians):
    """Of the first to the best of the others, by whether more is better."""
    others = [value for value in medians[1:] if not math.isnan(value)]
    if not others or math.isnan(medians[0]):
        return "-"
    best = max(others) if measurement.endswith("per second") else min(others)
    return f"{medians[0] / best:.2f}" if best > 0 else "-"


def quantile(ordered, share):
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else math.nan


def end_on_signals():
    """Contexts are left on SIGTERM and SIGHUP, too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))


def go(arguments, folder, environment=None, **options):
    """The go command, with the modules that it needs."""
    settings = {**os.environ, "GOFLAGS": "-p=2 -mod=mod", **(environment or {})}
    return subprocess.run(["nice", "-n", "10", "go", *map(str, arguments)], cwd=folder, check=True, text=True, env=settings, **options)
