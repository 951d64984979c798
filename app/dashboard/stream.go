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
	maxViewers   = 100              // further ones get 503
	maxPerUser   = 20               // per user, so that one user does not block the others
	writeTimeout = 5 * time.Second  // a viewer that does not accept an event within it is disconnected
	quietFor     = 15 * time.Second // after it a comment line is sent, so that proxies keep the connection

	askTimeout = 2 * time.Second // for checking a permission: longer than auth tries before it uses its cache
	askSlow    = time.Second / 2 // a slower answer counts as a failure for the viewers that wait
	askPause   = 5 * time.Second // then the pause before any viewer is checked again
)

// stream sends the events: first the history, also after a reconnect of EventSource, then each new event. After 204 and
// errors EventSource does not reconnect; the page's script does, later.
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

// watch sends events until the client disconnects, the server stops, or the viewer loses the permission. It returns an
// error if the client is connected but does not read.
func (b *Board) watch(c echo.Context, still *permit) error {
	gone := c.Request().Context()
	w := wire{c.Response(), http.NewResponseController(c.Response().Writer)} // echo discards the error of a flush
	beat := time.NewTicker(quietFor)
	defer beat.Stop()
	e := b.feed.event()
	err := w.send(append([]byte("retry: 2000\n"), e.whole()...))
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
				more = e.whole
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
	return nil // the client disconnected during a write
}

// wire sets a write deadline for each event: the server's deadline covers the whole response.
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

// permit is a viewer's permission to watch. It is checked before each event, usually in auth's cache.
type permit struct {
	b       *Board
	c       echo.Context
	request *http.Request // the original request
	ask     echo.HandlerFunc
	user    *auth.User
	ctx     context.Context
	end     func()
}

// newPermit detaches the permit from the request's worker. Under the strategy "persistent" a worker keeps its
// connection, and this one would keep it for as long as the viewer watches.
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

// look returns the viewer, or nil if not logged in. Viewers are checked one at a time: all wake at the same moment, and
// would need as many connections. Usually the first check fills the cache for the others.
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

// holds reports whether the viewer is still staff. If that can't be checked, it returns true: the dashboard is needed
// most then.
func (p *permit) holds() bool {
	err := p.inTurn(func() error {
		if time.Now().Before(p.b.askNext) {
			return nil
		}
		return p.lookNow()
	})
	return err != nil || p.user != nil && p.user.Staff
}

// unanswered translates an exceeded time limit: the server is too slow, or earlier checks are.
func unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && db.CauseOf(err) == "" {
		return &db.ConnError{Cause: db.ServerUnavailable, Err: err}
	}
	return err
}

// viewers counts the viewers by user.
type viewers struct {
	mu     sync.Mutex
	byUser map[int64]int
	all    int
}

// enter takes a place, which leave returns.
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
