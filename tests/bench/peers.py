#!/usr/bin/env python3
"""Acknowledged inserts of 1 KiB rows beside rqlite and etcd: peers.md and peers.csv in a folder.

One node and three on loopback, each system with its default settings of durability; all sync their logs before they acknowledge
(docs/performance.md). The load client is the Go program in `client/`: go-dqlite's driver, HTTP, etcd's client. Every cluster is new,
and systems take turns.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

from cluster import HOST, OURS, Failure, Library, Processes, Results, end_on_signals, free_ports, go, ratio_to_best

HERE = Path(__file__).resolve().parent
# A module that is built, its version, and replacements of its own go.mod, which go takes only from the main module.
ETCD = ("go.etcd.io/etcd/server/v3", "v3.6.16", "go.etcd.io/etcd/server/v3", [])
RQLITE = ("github.com/rqlite/rqlite/v8", "v8.43.4", "github.com/rqlite/rqlite/v8/cmd/rqlited", [
    "github.com/armon/go-metrics=github.com/hashicorp/go-metrics@v0.5.1",
    "github.com/mattn/go-sqlite3=github.com/rqlite/go-sqlite3@v1.40.0",
])
# Longest wait of one load beside its time: connections, and inserts that are slow.
MORE_SECONDS = 60
START_SECONDS = 30


def build_peer(folder, name, module):
    """A program of a module, by a module of ours that requires it."""
    path, version, package, replacements = module
    program = folder / f"{name}-{version}"
    if program.exists():
        return program
    place = folder / f"{name}-module"
    place.mkdir(exist_ok=True)
    (place / "go.mod").write_text(f"module bench/{name}\n")
    for replacement in replacements:
        go(["mod", "edit", "-replace", replacement], place)
    go(["get", f"{path}@{version}"], place)
    go(["build", "-o", program, package], place)
    return program


def build_client(folder):
    program = folder / "peers-client"
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-p=2 -mod=readonly"}
    go(["build", "-tags", "nosqlite3", "-o", program, "."], HERE / "client", settings)
    return program


class Dqlite:
    kind = "dqlite"

    def __init__(self, name, program, library):
        self.name = name
        self.program = program
        self.library = library

    def start(self, processes, count):
        """Starts nodes; the addresses for clients. The client's `prepare` makes them a cluster."""
        addresses = [f"{HOST}:{port}" for port in free_ports(count)]
        for number, address in enumerate(addresses, 1):
            folder = processes.folder / str(number)
            folder.mkdir()
            settings = ["--id", number, "--address", address, "--data-dir", folder, "--no-delay", "--busy-timeout", 5000]
            command = [*self.library.prefix, self.program, *settings]
            process = processes.start(command, f"{number}.log", self.library.environment)
            processes.wait_for(process, f"{number}.log", "ready", START_SECONDS)
        return addresses


def client_and_peer_addresses(count):
    """Where clients and where other nodes reach each of the nodes."""
    addresses = [f"{HOST}:{port}" for port in free_ports(2 * count)]
    return addresses[:count], addresses[count:]


class Rqlite:
    kind = "rqlite"

    def __init__(self, program):
        self.name = f"rqlite {RQLITE[1]}"
        self.program = program

    def start(self, processes, count):
        clients, peers = client_and_peer_addresses(count)
        together = ["-bootstrap-expect", count, "-join", ",".join(peers)] if count > 1 else []
        for number, (client, peer) in enumerate(zip(clients, peers), 1):
            command = [self.program, "-node-id", number, "-http-addr", client, "-raft-addr", peer, *together, processes.folder / str(number)]
            processes.start(command, f"{number}.log")
        return clients


class Etcd:
    kind = "etcd"

    def __init__(self, program):
        self.name = f"etcd {ETCD[1]}"
        self.program = program

    def start(self, processes, count):
        clients, peers = client_and_peer_addresses(count)
        all_peers = ",".join(f"n{number}=http://{peer}" for number, peer in enumerate(peers, 1))
        for number, (client, peer) in enumerate(zip(clients, peers), 1):
            command = [
                self.program, "--name", f"n{number}", "--data-dir", processes.folder / str(number), "--log-level", "error",
                "--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}",
                "--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}",
                "--initial-cluster", all_peers, "--initial-cluster-state", "new",
            ]
            processes.start(command, f"{number}.log")
        return clients


def ask(client, words, seconds):
    command = [str(word) for word in [client, *words]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"the client took longer than {seconds} s") from error
    if done.returncode != 0:
        raise Failure(done.stderr.strip()[-500:])
    return done.stdout


def measure(peer, client, nodes, arguments, results):
    with Processes(arguments.output / "work-peers") as processes:
        addresses = ["--peer", peer.kind, "--addresses", ",".join(peer.start(processes, nodes))]
        ask(client, ["prepare", *addresses], START_SECONDS + MORE_SECONDS)
        for clients in arguments.clients:
            name = f"{nodes} node{'s' if nodes > 1 else ''}, {clients} client{'s' if clients > 1 else ''}"
            before = processes.cpu_seconds()
            words = ["load", *addresses, "--clients", clients, "--warm-up", "1s", "--time", f"{arguments.seconds}s"]
            found = json.loads(ask(client, words, arguments.seconds + MORE_SECONDS))
            used = processes.cpu_seconds() - before
            results.add(f"{name}: inserts per second", peer.name, found["per_second"])
            for key in ("p50", "p99"):
                value = found[f"{key}_us"]
                results.add(f"{name}: {key} us", peer.name, value if value >= 0 else math.nan)
            results.add(f"{name}: client's share of the CPU, %", peer.name, 100 * found["cpu_seconds"] / max(used + found["cpu_seconds"], 0.001))
            if found["errors"]:
                results.fail(peer.name, f"{name}, {found['errors']} inserts", found["error"])


def page(results, arguments):
    def ratio(measurement, medians):
        return "-" if "share" in measurement else ratio_to_best(measurement, medians)
    return (
        f"Inserts of 1 KiB rows in closed loops, {arguments.rounds} rounds of {arguments.seconds} s after 1 s; medians (lowest..highest).\n\n"
        + results.markdown("ours / best peer", ratio)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for peers.md and peers.csv, and for what is built")
    parser.add_argument("program", type=Path, help="dqlite-node")
    parser.add_argument("library", type=Path, help="folder of libdqlite.so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    arguments = parser.parse_args()
    end_on_signals()
    arguments.output = arguments.output.resolve()
    arguments.output.mkdir(parents=True, exist_ok=True)
    client = build_client(arguments.output)
    peers = [
        Dqlite(OURS, arguments.program.resolve(), Library(OURS, arguments.library)),
        Rqlite(build_peer(arguments.output, "rqlite", RQLITE)),
        Etcd(build_peer(arguments.output, "etcd", ETCD)),
    ]
    results = Results([peer.name for peer in peers])
    for number in range(1, arguments.rounds + 1):
        for nodes, peer in itertools.product(arguments.nodes, peers):
            print(f"round {number} of {arguments.rounds}: {peer.name}, {nodes} nodes", file=sys.stderr, flush=True)
            try:
                measure(peer, client, nodes, arguments, results)
            except Failure as error:
                results.fail(peer.name, f"round {number}, {nodes} nodes", error)
        (arguments.output / "peers.md").write_text(page(results, arguments))
        (arguments.output / "peers.csv").write_text(results.csv())
    print(page(results, arguments), end="")
    sys.exit(results.exit_code())


if __name__ == "__main__":
    main()
