package app

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// halfClosedFor is how long a request goes on whose client has closed its sending side. Such a client may still read
// the answer; one that has hung up looks the same until it is written to.
const halfClosedFor = 2 * time.Second

// descriptorsElsewhere is how many file descriptors are kept for what is neither a client nor a request's connection
// to the database: log, listener, monitor, mail, files.
const descriptorsElsewhere = 8

// mostClients is how many client connections a process may have that may open limit files: half of them, since under
// some strategies each client has a connection to the database. 0 is no bound.
func mostClients(limit uint64) int {
	if limit == 0 || limit > 1<<20 {
		return 0
	}
	return max(int(limit)/2-descriptorsElsewhere, 4)
}

// listener bounds the connections that are open at once. The next client waits in the kernel's queue for its turn, so
// that a crowd of clients can't use up the file descriptors that the database and the log need.
type listener struct {
	net.Listener
	places chan struct{} // nil: no bound
	crowd  *crowd
	closed chan struct{}
	once   sync.Once
}

func bound(l net.Listener, c *crowd) net.Listener {
	b := &listener{Listener: l, crowd: c, closed: make(chan struct{})}
	if c.most > 0 {
		b.places = make(chan struct{}, c.most)
	}
	return b
}

// Accept is part of net.Listener. It returns a *conn.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.places == nil {
		return &conn{Conn: c}, nil
	}
	select {
	case l.places <- struct{}{}:
		if len(l.places) < cap(l.places)*3/4 {
			l.crowd.full.Store(false)
		}
	default:
		if !l.wait() {
			return nil, errors.Join(net.ErrClosed, c.Close())
		}
	}
	return &conn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// wait waits for a place, until the listener is closed. Most come free as clients are told to leave with their answers;
// if none does, those that ask for nothing have to go.
func (l *listener) wait() bool {
	l.crowd.begin()
	evict := time.NewTicker(evictAfter)
	defer evict.Stop()
	for {
		select {
		case l.places <- struct{}{}:
			return true
		case <-evict.C:
			l.crowd.evict()
		case <-l.closed:
			return false
		}
	}
}

// Close is part of net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn is a client's connection. While a request is answered, net/http reads one byte ahead to learn whether the client
// is gone, and cancels the request when that read fails. Two failures don't mean that it is gone: the end of what a
// client sends that still reads, and the deadline for reading the request. conn keeps those back.
type conn struct {
	net.Conn
	leave func() // nil: without a bound

	mu      sync.Mutex
	aborted bool          // net/http ends its read: the request is answered
	wake    chan struct{} // of the read that is kept back; closed by abort and Close
	closed  bool
}

// Read is part of net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil || n > 0 || len(p) != 1 { // only the read ahead is of one byte
		return n, err
	}
	for errors.Is(err, os.ErrDeadlineExceeded) && c.lift() {
		n, err = c.Conn.Read(p)
	}
	if errors.Is(err, io.EOF) {
		return 0, c.keepBack(err)
	}
	return n, err
}

// lift removes the deadline for reading the request, once it is read. It reports whether it did.
func (c *conn) lift() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.aborted && !c.closed && c.Conn.SetReadDeadline(time.Time{}) == nil
}

func (c *conn) keepBack(err error) error {
	c.mu.Lock()
	if c.aborted {
		c.mu.Unlock()
		return os.ErrDeadlineExceeded
	}
	wake := make(chan struct{})
	c.wake = wake
	c.mu.Unlock()
	timer := time.NewTimer(halfClosedFor)
	defer timer.Stop()
	select {
	case <-wake:
		return os.ErrDeadlineExceeded // what net/http expects of a read that it ends; the next one finds the end again
	case <-timer.C:
		return err
	}
}

// longAgo is later than the deadline by which net/http ends a read, and earlier than any real one.
var longAgo = time.Unix(1<<20, 0)

// SetReadDeadline is part of net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = !t.IsZero() && t.Before(longAgo)
	if c.aborted {
		c.release()
	}
	return c.Conn.SetReadDeadline(t)
}

// Close is part of net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.release()
	c.mu.Unlock()
	err := c.Conn.Close()
	if c.leave != nil {
		c.leave()
	}
	return err
}

// release ends the read that is kept back, if any. c.mu is held.
func (c *conn) release() {
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// CloseWrite lets net/http end a response before it closes the connection.
func (c *conn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// evictAfter is how long a client waits for a place before idle connections are closed for it. Closing one may hit a
// request that is on its way.
const evictAfter = time.Second

// crowd is what happens while clients wait for a place: connections that stay open make room, and the log has one line
// a second. One goroutine calls begin and evict.
type crowd struct {
	full      atomic.Bool // answers say "Connection: close"
	most      int         // 0: no bound
	log       *slog.Logger
	keepAlive func(bool) // the server's
	logged    time.Time
	waited    int // clients since logged
}

func (c *crowd) begin() {
	c.full.Store(true)
	c.waited++
	if time.Since(c.logged) < time.Second {
		return
	}
	c.log.Warn("all places for client connections are taken: new clients wait. Raise the limit of open files (ulimit -n) to have more",
		"places", c.most, "clients", c.waited)
	c.logged, c.waited = time.Now(), 0
}

// evict closes the connections that are idle.
func (c *crowd) evict() {
	c.keepAlive(false)
	c.keepAlive(true)
}
