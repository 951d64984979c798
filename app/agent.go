package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ddtb/app/web"
	"ddtb/db"
	"ddtb/db/activity"
)

// agent answers HAProxy's agent-check. Each connection gets one line and is closed.
//
//	up 75%            the process serves; the weight falls as its load rises
//	up ready 75%      the same, during the first seconds that a balancer asks: clears the previous process's "drain"
//	down #CAUSE       no request can get a connection: "down #slots exhausted"
//	drain             the process is stopping, and still serves requests
//
// "ready" is limited to the first seconds because it also clears a drain or maintenance state set by an operator.
type agent struct {
	net.Listener
	ready *readiness
	stat  func() db.Stat
	share atomic.Int64 // the weight, in percent
	ctx   context.Context
	close context.CancelFunc
	ended sync.WaitGroup

	mu    sync.Mutex
	peers map[netip.Addr]*peer
}

// peer is a balancer that polls the agent.
type peer struct {
	since, asked time.Time   // the first and the last poll
	notified     atomic.Bool // of the stop of this process
}

const (
	agentClients = 16               // at once; more are closed
	agentPeers   = 64               // remembered
	agentTimeout = 3 * time.Second  // per connection; a query of the server takes at most askTimeout
	peerFor      = 10 * time.Second // a balancer silent for this long is gone; one younger than this is new
)

// listenAgent opens the agent's address. An address without a host is on the loopback interface only. It returns nil if
// there is no address.
func listenAgent(ctx context.Context, addr string, ready *readiness, stat func() db.Stat) (*agent, error) {
	if addr == "" {
		return nil, nil
	}
	if strings.HasPrefix(addr, ":") {
		addr = "127.0.0.1" + addr
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("server.agent_addr: can't listen on %q: %w; choose another HOST:PORT", addr, err)
	}
	g := &agent{Listener: l, ready: ready, stat: stat, peers: map[netip.Addr]*peer{}}
	g.share.Store(100)
	g.ctx, g.close = context.WithCancel(context.Background())
	g.ended.Go(g.accept)
	var own load
	g.ended.Go(func() { activity.Every(g.ctx, loadEvery, func() { g.share.Store(own.weight(g.stat())) }) })
	return g, nil
}

// Close stops the agent. It may be called twice, and on nil.
func (g *agent) Close() {
	if g == nil {
		return
	}
	g.close()
	_ = g.Listener.Close() // an error if it is already closed
	g.ended.Wait()
}

func (g *agent) accept() {
	places := make(chan struct{}, agentClients)
	for {
		c, err := g.Accept()
		if err != nil && g.ctx.Err() != nil {
			return
		}
		if err != nil {
			pause(g.ctx, loadEvery) // out of file descriptors
			continue
		}
		select {
		case places <- struct{}{}:
			g.ended.Go(func() {
				g.serve(c)
				<-places
			})
		default:
			_ = c.Close()
		}
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serve answers one connection. It reads the client's data before closing: otherwise the kernel sends a reset, which
// can overtake the answer.
func (g *agent) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(g.ctx, func() { _ = c.Close() })()
	if c.SetDeadline(time.Now().Add(agentTimeout)) != nil {
		return
	}
	p := g.peer(c.RemoteAddr())
	line, stopping := g.line(p)
	if _, err := io.WriteString(c, line+"\n"); err == nil && stopping {
		p.notified.Store(true)
	}
	if tcp, ok := c.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, 1<<10)
	}
}

// line returns the answer for a balancer.
func (g *agent) line(p *peer) (line string, stopping bool) {
	r := g.ready.check(g.ctx)
	switch {
	case r.stopping:
		return "drain", true
	case !r.Ready:
		why := strings.Fields(cmp.Or(string(r.Cause), r.Detail)) // on one line
		return "down #" + web.Cut(strings.Join(why, " ")), false // without the blank, HAProxy takes it for nothing
	}
	state := "up"
	if time.Since(p.since) < peerFor {
		state = "up ready"
	}
	return fmt.Sprintf("%s %d%%", state, g.share.Load()), false
}

// peer returns the balancer at the address and records the poll. Balancers above the limit are not stored.
func (g *agent) peer(addr net.Addr) *peer {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for a, p := range g.peers {
		if now.Sub(p.asked) > peerFor {
			delete(g.peers, a)
		}
	}
	from, _ := netip.ParseAddrPort(addr.String()) // formatted by the kernel
	p := g.peers[from.Addr()]
	if p == nil {
		p = &peer{since: now}
		if len(g.peers) < agentPeers {
			g.peers[from.Addr()] = p
		}
	}
	p.asked = now
	return p
}

// expected reports whether an active balancer has not been notified of the stop yet.
func (g *agent) expected() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
		if !p.notified.Load() && time.Since(p.asked) <= peerFor {
			return true
		}
	}
	return false
}
