package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"ddtb/db"
)

// Listen opens the server's address. Its error says what to do.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, takenError(addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("no permission to listen on %s: ports below 1024 are for root, choose another with --addr HOST:PORT", addr)
	case err != nil:
		return nil, fmt.Errorf("can't listen on %q: %w; give --addr as HOST:PORT, such as 127.0.0.1:8000", addr, err)
	}
	return l, nil
}

// takenError is the error of an address that another program has.
type takenError string

func (e takenError) Error() string {
	return string(e) + " is taken by another program: stop that one, or choose another address (HOST:PORT; port 0 takes a free one)"
}

func (e takenError) Unwrap() error { return syscall.EADDRINUSE }

// How shutdown_timeout is divided. Serve always returns within it, whatever hangs, because the process is killed after
// it. The first two shares are of the whole; the others are of what the drain has left.
const (
	drainShare    = 0.2  // requests are served with "Connection: close"
	balancerShare = 0.4  // the same, if a balancer polls the agent
	requestsShare = 0.6  // running requests may finish
	closeShare    = 0.75 // mails, events and traces may be sent
	stopShare     = 0.9  // after it, parts that still hang are abandoned
)

// A drain ends early when no request came for drainQuiet: then no balancer sends requests any more. It lasts at most
// maxDrain, unless server.drain is longer or a balancer must still be notified.
const (
	drainQuiet = 500 * time.Millisecond
	maxDrain   = 2 * time.Second
	drainCheck = 20 * time.Millisecond
)

// readHeaderTimeout is how long a client may take to send the header of a request.
const readHeaderTimeout = 10 * time.Second

// Serve answers requests on l until ctx ends. Then /readyz fails, Serve continues briefly until clients and balancers
// notice, waits for running requests, and closes what New started, all within shutdown_timeout.
func (a *App) Serve(ctx context.Context, l net.Listener) error {
	clients, bounded := newClients(), bound(l, mostClients(descriptors()), a.log)
	s := &serving{App: a, clients: clients, listener: bounded}
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      3 * time.Minute, // of a response without a deadline of its own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ConnContext:       withWorker,
		ConnState:         clients.changed,
	}
	bounded.keepAlive = server.SetKeepAlivesEnabled
	server.RegisterOnShutdown(a.board.Close) // its streams do not end by themselves
	server.RegisterOnShutdown(a.scenes.Close)
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stopped <- s.stop(context.WithoutCancel(ctx), server)
	}()
	if err := server.Serve(bounded); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}

// serving is an App that serves, with the state that its shutdown needs.
type serving struct {
	*App
	clients  *clients
	listener *listener
	stopping atomic.Bool
}

// ServeHTTP implements http.Handler. While the server stops or is crowded, every connection is closed after its
// response.
func (s *serving) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.stopping.Load() || s.listener.full.Load() {
		w.Header().Set("Connection", "close")
	}
	s.echo.ServeHTTP(w, r)
}

func (s *serving) stop(ctx context.Context, server *http.Server) error {
	total, began := s.cfg.Server.ShutdownTimeout, time.Now()
	s.drain(began, total)
	drained := time.Now()
	left := total - drained.Sub(began)
	until := func(share float64) (context.Context, context.CancelFunc) {
		return context.WithDeadline(ctx, drained.Add(time.Duration(share*float64(left))))
	}
	requests, cancel := until(requestsShare)
	defer cancel()
	err := server.Shutdown(requests)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were still under way after %.1f s, and were cut", time.Since(began).Seconds()), server.Close())
	}
	s.clients.quiet.Stop()
	rest, cancel := until(closeShare)
	defer cancel()
	hard, cancel := until(stopShare)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- s.Close(rest) }()
	select {
	case cerr := <-closed:
		return errors.Join(err, cerr)
	case <-hard.Done():
		return errors.Join(err, fmt.Errorf("the stop took longer than server.shutdown_timeout (%v) allows: what still hung was left behind", total))
	}
}

// drain makes the server unready and continues serving: for server.drain, then until every balancer that polls the
// agent has been notified and no client sends requests any more.
func (s *serving) drain(began time.Time, total time.Duration) {
	s.stopping.Store(true) // before balancers are notified: later responses have "Connection: close"
	s.ready.stopping.Store(true)
	least := s.cfg.Server.Drain
	most := max(least, min(time.Duration(drainShare*float64(total)), maxDrain))
	if s.agent.expected() {
		most = max(most, time.Duration(balancerShare*float64(total)))
	}
	tick := time.NewTicker(drainCheck)
	defer tick.Stop()
	for now := began; now.Sub(began) < most; now = <-tick.C {
		if now.Sub(began) >= least && !s.agent.expected() && !s.clients.seen(drainQuiet) {
			return
		}
	}
}

// withWorker makes each client connection a worker in the sense of package db, like the thread per client of a threaded
// server. The worker ends with the connection.
func withWorker(ctx context.Context, c net.Conn) context.Context {
	ctx, c.(*conn).gone = db.WithWorker(ctx)
	return ctx
}

// clients notes when client connections are active.
type clients struct {
	quiet *time.Timer // fires when no request has ended for quietFor
	armed atomic.Bool // the timer runs
	began time.Time
	last  atomic.Int64 // when a connection last began or ended a request, in nanoseconds since then
}

// quietFor is the time after a burst of requests before its memory is returned to the system. After 512 clients, that is
// half of the process's memory. After one second instead, bursts that came every few seconds were served a fifth slower:
// each began with page faults.
const quietFor = 30 * time.Second

func newClients() *clients {
	cs := &clients{began: time.Now()}
	cs.quiet = time.AfterFunc(time.Hour, cs.free) // started by the first request
	return cs
}

// free returns memory to the system if no client was active for a while, and checks again later otherwise. Resetting
// the timer on each request would cost more.
func (cs *clients) free() {
	if cs.seen(quietFor) {
		cs.quiet.Reset(quietFor)
		return
	}
	cs.armed.Store(false)
	debug.FreeOSMemory()
}

// seen reports whether a client was active within the last d.
func (cs *clients) seen(d time.Duration) bool {
	last := cs.last.Load()
	return last > 0 && time.Since(cs.began)-time.Duration(last) < d
}

func (cs *clients) changed(_ net.Conn, state http.ConnState) {
	cs.last.Store(int64(time.Since(cs.began)))
	if state == http.StateIdle && !cs.armed.Load() && cs.armed.CompareAndSwap(false, true) {
		cs.quiet.Reset(quietFor)
	}
}
