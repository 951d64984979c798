package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// halfClosedFor is how long a request continues after its client has closed its sending side. Such a client may still
// read the response. A client that closed the whole connection looks the same until the first write.
const halfClosedFor = 2 * time.Second

// descriptorsElsewhere is the number of file descriptors reserved for everything except clients and requests' database
// connections: log, listener, monitor, mail, files.
const descriptorsElsewhere = 8

// mostClients returns the maximum number of client connections for a process that may open limit files. It is half of
// them, because under some strategies each client has its own database connection. 0 means no limit.
func mostClients(limit uint64) int {
	if limit == 0 || limit > 1<<20 {
		return 0
	}
	return max(int(limit)/2-descriptorsElsewhere, 4)
}

// listener limits the number of open connections. Further clients wait in the kernel's queue, so that they can't use up
// the file descriptors that the database and the log need.
type listener struct {
	net.Listener
	places chan struct{} // nil: no limit
	full   atomic.Bool   // a client had to wait, and since then few places were free: responses close their connections
	closed chan struct{}
	once   sync.Once

	keepAlive func(bool) // the server's
	log       *slog.Logger
	logged    time.Time // these two are of the goroutine that calls Accept
	waited    int       // clients since the last log line
}

// bound limits l to so many connections; 0: no limit.
func bound(l net.Listener, most int, log *slog.Logger) *listener {
	b := &listener{Listener: l, closed: make(chan struct{}), log: log}
	if most > 0 {
		b.places = make(chan struct{}, most)
	}
	return b
}

// Accept implements net.Listener. It returns a *conn.
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
			l.full.Store(false)
		}
	default:
		if !l.wait() {
			return nil, errors.Join(net.ErrClosed, c.Close())
		}
	}
	return &conn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// evictAfter is how long a client waits for a place before idle connections are closed. Closing one may interrupt a
// request in transit.
const evictAfter = time.Second

// wait waits for a free place or until the listener is closed. Most places become free because responses ask clients to
// close. If none does, idle connections are closed.
func (l *listener) wait() bool {
	l.full.Store(true)
	l.logWait()
	evict := time.NewTicker(evictAfter)
	defer evict.Stop()
	for {
		select {
		case l.places <- struct{}{}:
			return true
		case <-evict.C:
			l.keepAlive(false) // closes idle connections
			l.keepAlive(true)
		case <-l.closed:
			return false
		}
	}
}

// logWait counts a client that waits, and logs one line per second.
func (l *listener) logWait() {
	l.waited++
	if time.Since(l.logged) < time.Second {
		return
	}
	l.log.Warn("all places for client connections are taken: new clients wait. Raise the limit of open files (ulimit -n) to have more",
		"places", cap(l.places), "clients", l.waited)
	l.logged, l.waited = time.Now(), 0
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn is a client's connection. While a request is answered, net/http reads one byte ahead to detect a closed
// connection, and cancels the request when that read fails. Two failures don't mean that the client is gone: end of
// file from a client that still reads, and the deadline for reading the request. conn holds those back.
type conn struct {
	net.Conn
	leave func()             // nil: no limit
	gone  context.CancelFunc // ends the client's worker; nil: it has none

	mu      sync.Mutex
	aborted bool          // net/http ended its read: the request is answered
	wake    chan struct{} // wakes the read that is held back; closed by abort and Close
	closed  bool
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil || n > 0 || len(p) != 1 { // the read ahead, and only that, is of one byte
		return n, err
	}
	for errors.Is(err, os.ErrDeadlineExceeded) && c.lift() {
		n, err = c.Conn.Read(p)
	}
	if errors.Is(err, io.EOF) {
		return 0, c.holdBack(err)
	}
	return n, err
}

// lift removes the deadline for reading the request after it was read. It reports whether it did.
func (c *conn) lift() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.aborted && !c.closed && c.Conn.SetReadDeadline(time.Time{}) == nil
}

// holdBack returns err, the end of the file, after halfClosedFor, for the client may still read the response. It returns
// earlier when the request is answered or the connection closed.
func (c *conn) holdBack(err error) error {
	c.mu.Lock()
	if c.aborted || c.closed {
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
		return os.ErrDeadlineExceeded // as net/http expects; the next read finds the end again
	case <-timer.C:
		return err
	}
}

// longAgo is later than the deadline with which net/http ends a read, and earlier than any real one.
var longAgo = time.Unix(1<<20, 0)

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = !t.IsZero() && t.Before(longAgo)
	if c.aborted {
		c.release()
	}
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.release()
	c.mu.Unlock()
	err := c.Conn.Close()
	if c.gone != nil {
		c.gone()
	}
	if c.leave != nil {
		c.leave()
	}
	return err
}

// release ends the read that is held back, if any. The caller holds c.mu.
func (c *conn) release() {
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// CloseWrite lets net/http finish a response before it closes the connection.
func (c *conn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}
