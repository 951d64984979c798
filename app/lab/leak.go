package lab

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/db"
)

// Leak is the response of /test/connection-leak.
type Leak struct {
	Test     string   `json:"test"`
	Strategy string   `json:"strategy"`
	Settings Settings `json:"settings"`
	Count    int      `json:"count"`
	Attempts []string `json:"attempts"`
	Errors   []string `json:"errors"`
	Leaked   []Holder `json:"leaked"` // all that are out now, those of earlier calls included
	Reclaim  string   `json:"reclaim"`
}

// Holder is the holder of an open lease.
type Holder struct {
	BackendPID uint32  `json:"backend_pid"`
	Where      string  `json:"where"`
	AgeSeconds float64 `json:"age_seconds"`
}

const defaultReclaim = 30 * time.Second

// connectionLeak acquires leases and never releases them, like code without a deferred Release. They are reclaimed
// after reclaim=, so that the application recovers.
func (l *Lab) connectionLeak(c echo.Context) error {
	limits := *l.limits.Load()
	q := newQuery(c)
	cfg := l.db.Config()
	count := q.number("count", min(3, limits.MaxThreads), 1, limits.MaxThreads)
	reclaim := q.duration("reclaim", min(defaultReclaim, limits.MaxHold), time.Millisecond, limits.MaxHold)
	timeout := q.duration("timeout", min(max(timeoutOf(cfg), time.Second), limits.MaxHold), time.Millisecond, limits.MaxHold)
	if q.values.Has("timeout") {
		q.withinOwn(timeout, timeoutOf(cfg))
	}
	if err := q.end(); err != nil {
		return err
	}
	leak := &Leak{
		Test: "connection-leak", Strategy: cfg.Strategy, Settings: SettingsOf(cfg), Count: count,
		Attempts: []string{}, Errors: []string{}, Leaked: []Holder{}, Reclaim: reclaim.String(),
	}
	for i := range count {
		began := time.Now()
		err := l.leak(c.Request().Context(), limits.MaxThreads, timeout, reclaim)
		if i == 0 && fault.KindOf(err) == fault.Conflict {
			return err
		}
		if err != nil {
			leak.Errors = append(leak.Errors, fmt.Sprintf("Attempt %d: ERROR - %v", i, err))
			break // the others would only wait as long for the same result
		}
		leak.Attempts = append(leak.Attempts, fmt.Sprintf("Attempt %d: OK - leaked a connection after %.2f sec", i, time.Since(began).Seconds()))
	}
	leak.Leaked = l.holders()
	return answer(c, http.StatusOK, leak, leak.page)
}

// leak acquires a lease without releasing it on any path.
func (l *Lab) leak(ctx context.Context, most int, timeout, reclaim time.Duration) error {
	if err := l.beginLeak(most); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+timeout/100)
	defer cancel()
	lease, err := l.db.Acquire(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaking--
	if err != nil {
		return err
	}
	timer := time.AfterFunc(reclaim, func() { l.reclaim(lease) })
	l.leaked[lease] = func() { timer.Stop(); l.reclaim(lease) }
	return nil
}

// beginLeak counts a leak in progress, unless there are too many.
func (l *Lab) beginLeak(most int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.leaked)+l.leaking >= most {
		return fault.New(fault.Conflict, "%d leases are leaked already, the most that max_threads under [test] allows. They come back by themselves.", most)
	}
	l.leaking++
	return nil
}

func (l *Lab) reclaim(lease *db.Lease) {
	lease.Reclaim()
	lease.Release() // reports to the driver that it is unused
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.leaked, lease)
}

func (l *Lab) holders() []Holder {
	hs := []Holder{}
	for _, h := range l.db.Holders() {
		hs = append(hs, Holder{h.PID, h.Where, seconds(time.Since(h.Since))})
	}
	return hs
}
