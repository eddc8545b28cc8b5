package main

import (
	"context"
	"fmt"
	"time"

	etcdclient "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// etcd is reached by its own client, over gRPC; each client has a connection of its own.
type etcd struct{ addresses []string }

func (e etcd) prepare(ctx context.Context) error {
	return retry(ctx, func() error {
		leader, err := e.leader(ctx)
		if err != nil {
			return err
		}
		opened, err := open(ctx, leader)
		if err != nil {
			return err
		}
		defer opened.close()
		return opened.insert(ctx, "")
	})
}

// leader returns its address, once every node answers and names the same one.
func (e etcd) leader(ctx context.Context) (string, error) {
	found := ""
	leaders := map[uint64]bool{}
	for _, address := range e.addresses {
		opened, err := open(ctx, address)
		if err != nil {
			return "", err
		}
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, err := opened.client.Status(asked, address)
		cancel()
		opened.close()
		if err != nil {
			return "", err
		}
		leaders[status.Leader] = true
		if status.Header.MemberId == status.Leader {
			found = address
		}
	}
	if found == "" || len(leaders) != 1 {
		return "", fmt.Errorf("no leader")
	}
	return found, nil
}

func (e etcd) connect(ctx context.Context) (session, error) {
	leader, err := e.leader(ctx)
	if err != nil {
		return nil, err
	}
	return open(ctx, leader)
}

func open(ctx context.Context, address string) (*etcdSession, error) {
	opened, err := etcdclient.New(etcdclient.Config{
		Endpoints: []string{address}, DialTimeout: 5 * time.Second, DialOptions: []grpc.DialOption{grpc.WithBlock()}, Context: ctx,
	})
	if err != nil {
		return nil, err
	}
	return &etcdSession{opened, fmt.Sprintf("%016x", time.Now().UnixNano()), 0}, nil
}

type etcdSession struct {
	client *etcdclient.Client
	prefix string
	count  int
}

// insert puts a key that is new: the prefix is the nanosecond at which the client began.
func (s *etcdSession) insert(ctx context.Context, value string) error {
	s.count++
	_, err := s.client.Put(ctx, fmt.Sprintf("%s-%08d", s.prefix, s.count), value)
	return err
}

func (s *etcdSession) close() { s.client.Close() }
