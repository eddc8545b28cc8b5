package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/canonical/go-dqlite/v3/client"
	"github.com/canonical/go-dqlite/v3/driver"
)

const dqliteDriver = "dqlite-bench"

// dqlite is reached by go-dqlite's driver, which is Go alone. The first node has id 1 and made itself a cluster.
type dqlite struct {
	nodes    []client.NodeInfo
	database *sql.DB
}

func newDqlite(addresses []string) (*dqlite, error) {
	var nodes []client.NodeInfo
	for i, address := range addresses {
		nodes = append(nodes, client.NodeInfo{ID: uint64(i + 1), Address: address, Role: client.Voter})
	}
	store := client.NewInmemNodeStore()
	if err := store.Set(context.Background(), nodes); err != nil {
		return nil, err
	}
	opened, err := driver.New(store)
	if err != nil {
		return nil, err
	}
	sql.Register(dqliteDriver, opened)
	database, err := sql.Open(dqliteDriver, "bench.db")
	return &dqlite{nodes, database}, err
}

func (d *dqlite) prepare(ctx context.Context) error {
	leader, err := client.New(ctx, d.nodes[0].Address)
	if err != nil {
		return err
	}
	defer leader.Close()
	for _, node := range d.nodes[1:] {
		if err := retry(ctx, func() error { return leader.Add(ctx, node) }); err != nil {
			return fmt.Errorf("add %s: %w", node.Address, err)
		}
	}
	return retry(ctx, func() error {
		_, err := d.database.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT)")
		return err
	})
}

func (d *dqlite) connect(ctx context.Context) (session, error) {
	connection, err := d.database.Conn(ctx)
	return dqliteSession{connection}, err
}

type dqliteSession struct{ connection *sql.Conn }

func (s dqliteSession) insert(ctx context.Context, value string) error {
	_, err := s.connection.ExecContext(ctx, "INSERT INTO t(v) VALUES (?)", value)
	return err
}

func (s dqliteSession) close() { s.connection.Close() }
