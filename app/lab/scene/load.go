package scene

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// tally counts the requests of a load.
type tally struct {
	mu        sync.Mutex
	served    int
	failed    []int // requests, by their number in the load
	timeouts  int
	states    map[string]int
	messages  map[string]int
	latencies []time.Duration
}

func newTally() *tally { return &tally{states: map[string]int{}, messages: map[string]int{}} }

// run sends the load, and returns when every request has been answered.
func (t *tally) run(ctx context.Context, l Load, request Request) {
	var open sync.WaitGroup
	defer open.Wait()
	start := time.Now()
	for n := range l.Requests {
		due := start.Add(l.due(n))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		open.Go(func() {
			ctx, cancel := context.WithDeadline(ctx, due.Add(l.patience()))
			defer cancel()
			t.count(n, request(ctx, n), time.Since(due))
		})
	}
}

func (t *tally) count(n int, err error, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latencies = append(t.latencies, took)
	if err == nil {
		t.served++
		return
	}
	t.failed = append(t.failed, n)
	t.messages[message(err)]++
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		t.states[pe.Code]++
	} else if errors.Is(err, context.DeadlineExceeded) || db.CauseOf(err) == db.PoolTimeout {
		t.timeouts++
	}
}

// message is the error without the parts that vary between errors of the same kind.
func message(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Sprintf("%s: %s (SQLSTATE %s)", pe.Severity, pe.Message, pe.Code)
	}
	if ce, ok := errors.AsType[*db.ConnError](err); ok {
		return ce.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "context deadline exceeded"
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

func (t *tally) now() (served, refused int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.served, len(t.failed)
}

func (t *tally) outcome() *Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.latencies)
	return &Outcome{
		SQLStates: t.states, Timeouts: t.timeouts, Served: t.served, Refused: len(t.failed),
		P50: quantile(t.latencies, 0.50), P99: quantile(t.latencies, 0.99), Message: mostFrequent(t.messages),
	}
}

// mostFrequent returns the key with the highest count, the first in order among equals, or "".
func mostFrequent(counts map[string]int) (most string) {
	for key, n := range counts {
		if n > counts[most] || n == counts[most] && key < most {
			most = key
		}
	}
	return most
}

// countIf counts the elements for which is returns true.
func countIf[T any](list []T, is func(T) bool) (n int) {
	for _, x := range list {
		if is(x) {
			n++
		}
	}
	return n
}

// quantile is in milliseconds, with one decimal.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
	return float64(at.Round(100*time.Microsecond)) / float64(time.Millisecond)
}
