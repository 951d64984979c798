package main

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ddtb/config"
)

// relay is a link to a database that delays what goes either way, and can be cut.
type relay struct {
	listener net.Listener
	target   string
	delay    time.Duration // of each direction
	down     atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
	ended sync.WaitGroup
}

// newRelay is a link, and the way to the database over it.
func newRelay(t testing.TB, cfg config.Database, delay time.Duration) (*relay, config.Database) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)), delay: delay}
	r.ended.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.cut(true)
		r.ended.Wait()
	})
	cfg.Host, cfg.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	return r, cfg
}

// cut closes what is open and refuses what comes, until it is called with false.
func (r *relay) cut(down bool) {
	r.down.Store(down)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", r.target)
		if err != nil || !r.keep(client, server) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		r.ended.Go(func() { r.carry(server, client) })
		r.ended.Go(func() { r.carry(client, server) })
	}
}

func (r *relay) keep(both ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down.Load() {
		return false
	}
	r.conns = append(r.conns, both...)
	return true
}

// carry carries one direction. What is read while an earlier piece waits is not held up by that.
func (r *relay) carry(to, from net.Conn) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1000)
	r.ended.Go(func() {
		defer func() { _ = to.Close() }()
		for p := range pieces {
			<-time.After(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				_ = from.Close()
			}
		}
	})
	defer close(pieces)
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{time.Now().Add(r.delay), buf[:n]}
		}
		if err != nil {
			return
		}
	}
}
