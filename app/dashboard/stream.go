package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/db"
)

const (
	maxViewers   = 100              // the next gets 503
	maxPerUser   = 20               // of one user, so that nobody keeps out the others
	writeTimeout = 5 * time.Second  // who does not take an event for so long is dropped
	quietFor     = 15 * time.Second // after that a line without meaning is sent, so that no proxy hangs up

	askTimeout = 2 * time.Second // for whether who watches may: longer than auth tries before it uses what it knows
	askSlow    = time.Second / 2 // an answer that took longer is as bad as none for whoever waits behind it
	askPause   = 5 * time.Second // after that, before any viewer asks again
)

// stream sends the events: the history first, also after EventSource came back by itself, then each as it is made.
// With 204 and errors EventSource does not come back; the page's script does, later.
func (b *Board) stream(c echo.Context) error {
	still := newPermit(b, c)
	defer still.end()
	user, err := still.look()
	switch {
	case err != nil:
		return fmt.Errorf("ask who watches: %w", unanswered(err))
	case user == nil:
		return echo.NewHTTPError(http.StatusUnauthorized)
	case !user.Staff:
		return fault.New(fault.Forbidden, "The dashboard is for staff.")
	}
	leave, err := b.viewers.enter(user.ID)
	if err != nil {
		return err
	}
	defer leave()
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set(echo.HeaderCacheControl, "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events
	if c.Request().Method == http.MethodHead {
		return c.NoContent(http.StatusOK)
	}
	c.Response().WriteHeader(http.StatusOK)
	if err := b.watch(c, still); err != nil {
		b.Log.InfoContext(c.Request().Context(), "who watched the dashboard took too long to read, and was dropped",
			"user", user.Username, "client", c.RealIP(), "error", err)
	}
	return nil
}

// watch sends until the client is gone, the server ends, or who watches may no longer. The error is that of a client
// that is there and does not read.
func (b *Board) watch(c echo.Context, still *permit) error {
	gone := c.Request().Context()
	w := wire{c.Response(), http.NewResponseController(c.Response().Writer)} // echo loses the error of a flush
	beat := time.NewTicker(quietFor)
	defer beat.Stop()
	e := b.feed.event()
	err := w.send(append([]byte("retry: 2000\n"), e.history()...))
	for err == nil {
		var more func() []byte
		select {
		case <-gone.Done():
			return nil
		case <-b.feed.ctx.Done():
			return nil
		case <-beat.C:
			more = func() []byte { return []byte(":\n\n") }
		case <-e.next:
			missed := e.id
			e = b.feed.event()
			more = e.now
			if e.id != missed+1 {
				more = e.history
			}
		}
		if !still.holds() {
			return w.send([]byte("event: bye\ndata: {}\n\n"))
		}
		err = w.send(more())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil // it hung up while it was written to
}

// wire writes with a deadline of its own for each event: the server's is for the whole of a response.
type wire struct {
	http.ResponseWriter
	*http.ResponseController
}

func (w wire) send(b []byte) error {
	if err := w.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.ResponseController.Flush()
}

// permit is a viewer's right to watch, looked at before each event: mostly in auth's memory.
type permit struct {
	b       *Board
	c       echo.Context
	request *http.Request // as it came
	ask     echo.HandlerFunc
	user    *auth.User
	ctx     context.Context
	end     func()
}

// newPermit leaves the request's worker behind: under the strategy "persistent" a worker keeps the connection over
// which it asked, and this one would for as long as somebody watches.
func newPermit(b *Board, c echo.Context) *permit {
	ctx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(c.Request().Context(), cancel)
	p := &permit{b: b, c: c, request: c.Request(), ctx: ctx, end: func() { stop(); cancel() }}
	p.ask = b.Users.Middleware(func(c echo.Context) error {
		user, err := auth.UserFrom(c.Request().Context())
		if err == nil {
			p.user = user
		}
		return err
	})
	return p
}

// look tells who watches, nil for nobody, when it is this viewer's turn: all wake at the same moment, and together
// they would ask for as many connections. Mostly the first one's answer is then remembered for the others.
func (p *permit) look() (*auth.User, error) {
	err := p.inTurn(p.lookNow)
	return p.user, err
}

func (p *permit) inTurn(f func() error) error {
	ctx, cancel := context.WithTimeout(p.ctx, askTimeout)
	defer cancel()
	select {
	case p.b.asking <- struct{}{}:
		defer func() { <-p.b.asking }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *permit) lookNow() error {
	ctx, cancel := context.WithTimeout(p.ctx, askTimeout)
	defer cancel()
	p.c.SetRequest(p.request.WithContext(ctx))
	defer p.c.SetRequest(p.request)
	began := time.Now()
	err := p.ask(p.c)
	if p.ctx.Err() == nil && (err != nil || time.Since(began) > askSlow) {
		p.b.askNext = time.Now().Add(askPause)
	}
	return err
}

// holds tells whether who watches is staff still. That nobody can be asked is no reason to say no: it is when the
// dashboard is needed most.
func (p *permit) holds() bool {
	err := p.inTurn(func() error {
		if time.Now().Before(p.b.askNext) {
			return nil
		}
		return p.lookNow()
	})
	return err != nil || p.user != nil && p.user.Staff
}

// unanswered says of a time limit that passed what it means: the server takes too long, or those who asked before do.
func unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && db.CauseOf(err) == "" {
		return &db.ConnError{Cause: db.ServerUnavailable, Err: err}
	}
	return err
}

// viewers counts who watches, by user.
type viewers struct {
	mu     sync.Mutex
	byUser map[int64]int
	all    int
}

// enter takes a place until leave.
func (v *viewers) enter(user int64) (leave func(), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.byUser[user] >= maxPerUser:
		return nil, fault.New(fault.Busy, "You watch the dashboard in %d windows already. Close it where nobody looks.", maxPerUser)
	case v.all >= maxViewers:
		return nil, fault.New(fault.Busy,
			"As many watch the dashboard as may. Close it where nobody looks, or load the page now and then.")
	case v.byUser == nil:
		v.byUser = map[int64]int{}
	}
	v.all++
	v.byUser[user]++
	return func() { v.leave(user) }, nil
}

func (v *viewers) leave(user int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all--
	if v.byUser[user]--; v.byUser[user] == 0 {
		delete(v.byUser, user)
	}
}
