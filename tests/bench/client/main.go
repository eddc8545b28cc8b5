// Load client of `make bench-peers`: inserts rows of 1 KiB in closed loops, each client on a connection of its own to the leader,
// and prints what it measured as one line of JSON. What it is to do is the first word: prepare, or load.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	rowBytes = 1024
	// Longest wait of one insert, and of a cluster that comes up.
	insertTime  = 20 * time.Second
	prepareTime = 90 * time.Second
	letters     = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)

// peer is a cluster of one kind.
type peer interface {
	// prepare waits until all nodes are there, and makes the table.
	prepare(ctx context.Context) error
	// connect opens the connection of one client to the leader.
	connect(ctx context.Context) (session, error)
}

type session interface {
	// insert returns when the row is acknowledged.
	insert(ctx context.Context, value string) error
	close()
}

// result of one load; times in microseconds, CPU of this process in seconds.
type result struct {
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	Errors    int     `json:"errors"`
	Error     string  `json:"error,omitempty"`
	CPU       float64 `json:"cpu_seconds"`
}

type plan struct {
	clients      int
	warmUp, time time.Duration
}

// tally is what one client saw.
type tally struct {
	latencies []time.Duration
	errors    int
	last      error
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) == 0 || (words[0] != "prepare" && words[0] != "load") {
		return fmt.Errorf("the first word is prepare or load")
	}
	flags := flag.NewFlagSet(words[0], flag.ContinueOnError)
	kind := flags.String("peer", "", "dqlite, rqlite or etcd")
	addresses := flags.String("addresses", "", "where clients of its nodes connect, with commas between")
	var load plan
	flags.IntVar(&load.clients, "clients", 1, "clients")
	flags.DurationVar(&load.warmUp, "warm-up", time.Second, "time before what is measured")
	flags.DurationVar(&load.time, "time", 3*time.Second, "time that is measured")
	if err := flags.Parse(words[1:]); err != nil {
		return err
	}
	target, err := find(*kind, strings.Split(*addresses, ","))
	if err != nil {
		return err
	}
	ctx := context.Background()
	if words[0] == "prepare" {
		ctx, cancel := context.WithTimeout(ctx, prepareTime)
		defer cancel()
		return target.prepare(ctx)
	}
	measured, err := measure(ctx, target, load)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(measured)
}

func find(kind string, addresses []string) (peer, error) {
	switch kind {
	case "dqlite":
		return newDqlite(addresses)
	case "rqlite":
		return rqlite{addresses}, nil
	case "etcd":
		return etcd{addresses}, nil
	}
	return nil, fmt.Errorf("no peer is called %q", kind)
}

// measure counts inserts that were acknowledged within the time after the warm-up.
func measure(ctx context.Context, target peer, load plan) (result, error) {
	sessions := make([]session, load.clients)
	for i := range sessions {
		opened, err := target.connect(ctx)
		if err != nil {
			return result{}, fmt.Errorf("connect: %w", err)
		}
		defer opened.close()
		sessions[i] = opened
	}
	from := time.Now().Add(load.warmUp)
	until := from.Add(load.time)
	tallies := make([]tally, load.clients)
	var working sync.WaitGroup
	for i, opened := range sessions {
		working.Add(1)
		go func() {
			defer working.Done()
			tallies[i] = insertUntil(ctx, opened, from, until)
		}()
	}
	working.Wait()
	return summary(tallies, load), nil
}

func insertUntil(ctx context.Context, opened session, from, until time.Time) tally {
	var seen tally
	for {
		value := randomText()
		start := time.Now()
		if !start.Before(until) {
			return seen
		}
		attempt, cancel := context.WithTimeout(ctx, insertTime)
		err := opened.insert(attempt, value)
		cancel()
		end := time.Now()
		switch {
		case err != nil:
			seen.errors++
			seen.last = err
		case end.After(from) && end.Before(until):
			seen.latencies = append(seen.latencies, end.Sub(start))
		}
	}
}

func summary(tallies []tally, load plan) result {
	var all []time.Duration
	var whole result
	for _, one := range tallies {
		all = append(all, one.latencies...)
		whole.Errors += one.errors
		if one.last != nil {
			whole.Error = one.last.Error()
		}
	}
	slices.Sort(all)
	whole.PerSecond = float64(len(all)) / load.time.Seconds()
	whole.P50, whole.P99 = quantile(all, 0.5), quantile(all, 0.99)
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err == nil {
		whole.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	}
	return whole
}

// quantile of sorted times, in microseconds; -1 if there are none.
func quantile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return -1
	}
	place := min(int(share*float64(len(sorted))), len(sorted)-1)
	return float64(sorted[place]) / float64(time.Microsecond)
}

func randomText() string {
	text := make([]byte, rowBytes)
	for i := range text {
		text[i] = letters[rand.Intn(len(letters))]
	}
	return string(text)
}

// retry repeats an attempt until it succeeds or the time is over.
func retry(ctx context.Context, attempt func() error) error {
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
