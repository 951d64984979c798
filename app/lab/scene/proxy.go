package scene

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// Proxy is a TCP proxy between the application and the server, like a load balancer or a firewall. It is written here
// because a proxy library would be a hundred times its size in every program.
type Proxy struct {
	// LosesCancels drops cancel requests, like a balancer that sends them to a different server.
	LosesCancels bool

	listener net.Listener
	target   string

	mu    sync.Mutex
	conns []net.Conn
	quiet *atomic.Bool // of the existing connections
	ended sync.WaitGroup
}

// Proxy starts a proxy in front of the server.
func (s *Stage) Proxy() *Proxy {
	l, err := s.listen()
	if err != nil {
		s.Failed(err)
		return &Proxy{}
	}
	p := &Proxy{listener: l, target: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.server.pg.Port())), quiet: &atomic.Bool{}}
	p.ended.Go(p.accept)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = append(s.cut, p.close)
	return p
}

// Direct makes the settings use the proxy.
func (p *Proxy) Direct(cc *pgx.ConnConfig) {
	if a, ok := p.addr(); ok {
		cc.Host, cc.Port = "127.0.0.1", uint16(a.Port)
		for _, f := range cc.Fallbacks {
			f.Host, f.Port = cc.Host, cc.Port
		}
	}
}

func (p *Proxy) addr() (*net.TCPAddr, bool) {
	if p.listener == nil {
		return nil, false
	}
	a, ok := p.listener.Addr().(*net.TCPAddr)
	return a, ok
}

// Silence drops all further data of the existing connections without closing them, like a network that lost their
// state. New connections work.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quiet.Store(true)
	p.quiet = &atomic.Bool{}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.ended.Go(func() { p.carry(client) })
	}
}

const cancelCode = 80877102 // the protocol's code for a cancel request

func (p *Proxy) carry(client net.Conn) {
	quiet := p.keep(client)
	first := make([]byte, 8)
	if _, err := io.ReadFull(client, first); err != nil {
		_ = client.Close()
		return
	}
	if p.LosesCancels && binary.BigEndian.Uint32(first[4:]) == cancelCode {
		_ = client.Close()
		return
	}
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp4", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.keep(server)
	_, _ = server.Write(first)
	var both sync.WaitGroup
	both.Go(func() { pipe(server, client, quiet) })
	both.Go(func() { pipe(client, server, quiet) })
	both.Wait()
}

func (p *Proxy) keep(c net.Conn) *atomic.Bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
	return p.quiet
}

// pipe copies one direction. On a silenced connection not even the end is passed on.
func pipe(to, from net.Conn, quiet *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if quiet.Load() {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.ended.Wait()
}
