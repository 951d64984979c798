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
// connection, and cancels the request when that read fails. The end of file does not mean that the client is gone, for it may
// still read: conn holds it back. The deadline for reading the request does not end the read ahead: since Go 1.26 net/http
// lifts it.
type conn struct {
	net.Conn
	leave func()             // nil: no limit
	gone  context.CancelFunc // ends the client's worker; nil: it has none

	mu               sync.Mutex
	reading, writing deadline
	wake             chan struct{} // wakes the read that is held back; closed at the end of the request, and by Close
	closed           bool
}

// deadline is when reading or writing ends. net/http sets the two deadlines eight times in all for each request, and six of
// those would start, move or stop a timer: more than 1 % of the time that a page takes. So a deadline that is moved to a later
// time, or lifted, leaves the socket's as it is. When a read or a write fails because of the socket's, it gets the next one,
// and the read or the write goes on.
type deadline struct {
	due    time.Time // in force; zero: none
	socket time.Time // the socket's, never later than due; zero: none
}

// headerFor is how long the socket's deadline lasts after a response: then the deadline for the next request's header, which
// is never earlier, needs no timer either.
const headerFor = readHeaderTimeout

// move sets the deadline in force. set sets that of the socket.
func (d *deadline) move(t time.Time, set func(time.Time) error) error {
	d.due = t
	if !d.socket.IsZero() && (t.IsZero() || !t.Before(d.socket)) {
		return nil
	}
	d.socket = t
	return set(t)
}

// passed reports whether the deadline in force has passed.
func (d *deadline) passed(now time.Time) bool { return !d.due.IsZero() && !now.Before(d.due) }

// next sets the socket's next deadline, after its last one has passed. If that was the one in the past with which net/http
// ends its read ahead, a request has just been answered, and another one is likely soon: the socket gets headerFor. Otherwise
// it gets the one in force, so that a quiet client is not woken again.
func (d *deadline) next(now time.Time, set func(time.Time) error) error {
	busy, soon := d.socket.Before(longAgo), now.Add(headerFor)
	d.socket = d.due
	if busy && (d.due.IsZero() || soon.Before(d.due)) {
		d.socket = soon
	}
	return set(d.socket)
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (n int, err error) {
	for {
		n, err = c.Conn.Read(p)
		if err == nil || n > 0 {
			return n, err
		}
		if err = c.unlessMoved(err, &c.reading, c.Conn.SetReadDeadline); err != nil {
			break
		}
	}
	if len(p) == 1 && errors.Is(err, io.EOF) { // the read ahead, and only that, is of one byte
		return 0, c.holdBack(err)
	}
	return 0, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (n int, err error) {
	for {
		m, err := c.Conn.Write(p[n:])
		if n += m; err == nil {
			return n, nil
		}
		if err = c.unlessMoved(err, &c.writing, c.Conn.SetWriteDeadline); err != nil {
			return n, err
		}
	}
}

// unlessMoved returns err, or nil if it only means that the socket's deadline has passed, and not yet the one in force.
func (c *conn) unlessMoved(err error, d *deadline, set func(time.Time) error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case c.closed:
		return net.ErrClosed
	case d.passed(now):
		return err
	}
	return d.next(now, set)
}

// holdBack returns err, the end of the file, after halfClosedFor, for the client may still read the response. It returns
// earlier when the request is answered or the connection closed.
func (c *conn) holdBack(err error) error {
	c.mu.Lock()
	if c.answered() || c.closed {
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

// longAgo is later than the deadline with which net/http ends its read ahead, and earlier than any real one.
var longAgo = time.Unix(1<<20, 0)

// answered reports whether net/http has ended its read ahead: the request is answered. The caller holds c.mu.
func (c *conn) answered() bool { return !c.reading.due.IsZero() && c.reading.due.Before(longAgo) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.reading.move(t, c.Conn.SetReadDeadline)
	if c.answered() {
		c.release()
	}
	return err
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writing.move(t, c.Conn.SetWriteDeadline)
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
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
