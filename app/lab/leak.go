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

// Leak is the answer of /test/connection-leak.
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

// Holder is a lease that is out.
type Holder struct {
	BackendPID uint32  `json:"backend_pid"`
	Where      string  `json:"where"`
	AgeSeconds float64 `json:"age_seconds"`
}

const defaultReclaim = 30 * time.Second

// ConnectionLeak takes leases and forgets them, as code without a deferred Release does. They come back by
// themselves after reclaim=, so that the application is never lost for good.
func (l *Lab) ConnectionLeak(c echo.Context) error {
	limits := *l.limits.Load()
	q := &query{values: c.QueryParams()}
	cfg := l.db.Config()
	count := q.number("count", min(3, limits.MaxThreads), 1, limits.MaxThreads)
	reclaim := q.duration("reclaim", min(defaultReclaim, limits.MaxHold), time.Millisecond, limits.MaxHold)
	timeout := q.duration("timeout", min(max(timeoutOf(cfg), time.Second), limits.MaxHold), time.Millisecond, limits.MaxHold)
	if err := q.end(); err != nil {
		return err
	}
	answer := &Leak{
		Test: "connection-leak", Strategy: cfg.Strategy, Settings: SettingsOf(cfg), Count: count,
		Attempts: []string{}, Errors: []string{}, Leaked: []Holder{}, Reclaim: reclaim.String(),
	}
	for i := range count {
		if l.leaks() >= limits.MaxThreads {
			return fault.New(fault.Conflict, "%d leases are leaked already, the most that max_threads under [test] allows. They come back by themselves.", limits.MaxThreads)
		}
		began := time.Now()
		if err := l.leak(c.Request().Context(), timeout, reclaim); err != nil {
			answer.Errors = append(answer.Errors, fmt.Sprintf("Attempt %d: ERROR - %v", i, err))
			break // the others would only wait as long for the same answer
		}
		answer.Attempts = append(answer.Attempts, fmt.Sprintf("Attempt %d: OK - leaked a connection after %.2f sec", i, time.Since(began).Seconds()))
	}
	answer.Leaked = l.holders()
	return c.JSONPretty(http.StatusOK, answer, "  ")
}

// leak takes a lease and forgets it: no Release, on any path.
func (l *Lab) leak(ctx context.Context, timeout, reclaim time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout+timeout/100)
	defer cancel()
	lease, err := l.db.Acquire(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	timer := time.AfterFunc(reclaim, func() { l.takeBack(lease) })
	l.leaked[lease] = func() { timer.Stop(); l.takeBack(lease) }
	return nil
}

func (l *Lab) takeBack(lease *db.Lease) {
	lease.Reclaim()
	lease.Release() // nobody uses it: this tells the driver
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.leaked, lease)
}

func (l *Lab) leaks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.leaked)
}

func (l *Lab) holders() []Holder {
	hs := []Holder{}
	for _, h := range l.db.Holders() {
		hs = append(hs, Holder{h.PID, h.Where, round(time.Since(h.Since).Seconds(), 2)})
	}
	return hs
}
