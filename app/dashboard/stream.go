package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db/activity"
)

const (
	maxViewers = 100              // further ones get 503
	maxPerUser = 20               // per user, so that one user does not block the others
	quietFor   = 15 * time.Second // after it a comment line is sent, so that proxies keep the connection

	askTimeout = 2 * time.Second // for checking a permission: longer than auth tries before it uses its cache
	askSlow    = time.Second / 2 // a slower answer counts as a failure for the viewers that wait
	askPause   = 5 * time.Second // then the pause before any viewer is checked again
)

// stream sends the events: first the history, also after a reconnect of EventSource, then each new event. After 204 and
// errors EventSource does not reconnect; the page's script does, later.
func (b *Board) stream(c echo.Context) error {
	ctx, end := detached(c.Request().Context())
	defer end()
	user, err := b.viewer(ctx, c.Request(), false)
	switch {
	case err != nil:
		return fmt.Errorf("identify a viewer of the dashboard: %w", activity.Unanswered(err))
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
	send := web.EventStream(c)
	if send == nil {
		return nil
	}
	if err := b.sendAll(ctx, c.Request(), send); errors.Is(err, os.ErrDeadlineExceeded) {
		b.Log.InfoContext(ctx, "a viewer of the dashboard took too long to read, and was dropped",
			"user", user.Username, "client", c.RealIP(), "error", err)
	}
	return nil
}

// sendAll sends events until one can't be sent, the server stops, or the viewer loses the permission.
func (b *Board) sendAll(ctx context.Context, r *http.Request, send func(event []byte) error) error {
	beat := time.NewTicker(quietFor)
	defer beat.Stop()
	e := b.feed.event()
	err := send(append([]byte("retry: 2000\n"), e.whole()...))
	for err == nil {
		var more func() []byte
		select {
		case <-ctx.Done():
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
		if user, err := b.viewer(ctx, r, true); err == nil && (user == nil || !user.Staff) {
			return send([]byte("event: bye\ndata: {}\n\n"))
		}
		err = send(more())
	}
	return err
}

// detached returns a context without the request's worker, that ends with the request. Under the strategy "persistent" a
// worker keeps its connection, and this one would keep it for as long as the viewer watches.
func detached(request context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(request, cancel)
	return ctx, func() { stop(); cancel() }
}

var errPaused = errors.New("permissions can't be checked for a moment")

// viewer identifies a viewer, usually from auth's cache; nil: not logged in. It checks one viewer at a time: all wake at
// the same moment, and would need as many connections. Usually the first check fills the cache for the others. Before
// each event it checks again; an error then means that the stream continues, because the dashboard is needed most.
func (b *Board) viewer(ctx context.Context, r *http.Request, again bool) (*auth.User, error) {
	turn, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	select {
	case b.asking <- struct{}{}:
		defer func() { <-b.asking }()
	case <-turn.Done():
		return nil, turn.Err()
	}
	if again && time.Now().Before(b.askNext) {
		return nil, errPaused
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, askTimeout) // longer than auth tries before it uses its cache
	defer cancel()
	user, err := auth.UserOnce(b.Users.With(limited, r))
	if ctx.Err() == nil && (err != nil || time.Since(began) > askSlow) {
		b.askNext = time.Now().Add(askPause)
	}
	return user, err
}

// viewers is the user of each stream.
type viewers struct {
	mu    sync.Mutex
	users []int64
}

// enter takes a place, which leave returns.
func (v *viewers) enter(user int64) (leave func(), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	own := 0
	for _, other := range v.users {
		if other == user {
			own++
		}
	}
	switch {
	case own >= maxPerUser:
		return nil, fault.New(fault.Busy, "You watch the dashboard in %d windows already. Close one that you do not need.", maxPerUser)
	case len(v.users) >= maxViewers:
		return nil, fault.New(fault.Busy,
			"The dashboard already has its maximum of %d viewers. Close a window that you don't need, or reload this page from time to time.", maxViewers)
	}
	v.users = append(v.users, user)
	return func() { v.leave(user) }, nil
}

func (v *viewers) leave(user int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.Index(v.users, user)
	v.users = slices.Delete(v.users, i, i+1)
}
