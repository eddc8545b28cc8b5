package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// rqlite is reached by HTTP; each client has a connection that is kept.
type rqlite struct{ addresses []string }

type rqliteNode struct {
	Address   string `json:"api_addr"`
	Reachable bool   `json:"reachable"`
	Leader    bool   `json:"leader"`
}

func (r rqlite) prepare(ctx context.Context) error {
	return retry(ctx, func() error {
		leader, count, err := r.leader(ctx)
		if err != nil {
			return err
		}
		if count != len(r.addresses) {
			return fmt.Errorf("%d of %d nodes", count, len(r.addresses))
		}
		opened := rqliteSession{&http.Client{}, leader}
		return opened.execute(ctx, []any{"CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT)"})
	})
}

// leader returns its address as a URL, and how many voters can be reached.
func (r rqlite) leader(ctx context.Context) (string, int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addresses[0]+"/nodes", nil)
	if err != nil {
		return "", 0, err
	}
	var nodes map[string]rqliteNode
	if err := ask(&http.Client{}, request, &nodes); err != nil {
		return "", 0, err
	}
	leader, count := "", 0
	for _, node := range nodes {
		if node.Reachable {
			count++
		}
		if node.Leader {
			leader = node.Address
		}
	}
	if leader == "" {
		return "", count, fmt.Errorf("no leader")
	}
	return leader, count, nil
}

func (r rqlite) connect(ctx context.Context) (session, error) {
	leader, _, err := r.leader(ctx)
	return rqliteSession{&http.Client{Transport: &http.Transport{}}, leader}, err
}

type rqliteSession struct {
	client *http.Client
	leader string
}

func (s rqliteSession) insert(ctx context.Context, value string) error {
	return s.execute(ctx, []any{"INSERT INTO t(v) VALUES (?)", value})
}

func (s rqliteSession) execute(ctx context.Context, statement []any) error {
	body, err := json.Marshal([]any{statement})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.leader+"/db/execute", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	var answer struct {
		Results []struct {
			Error string `json:"error"`
		} `json:"results"`
	}
	if err := ask(s.client, request, &answer); err != nil {
		return err
	}
	if len(answer.Results) != 1 || answer.Results[0].Error != "" {
		return fmt.Errorf("rqlite answers %+v", answer)
	}
	return nil
}

func (s rqliteSession) close() { s.client.CloseIdleConnections() }

func ask(client *http.Client, request *http.Request, answer any) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, body)
	}
	return json.Unmarshal(body, answer)
}
