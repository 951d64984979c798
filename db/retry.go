package db

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// The most runs of a transaction. The pauses between them add up to about half a second. A serializable database with
// fifty simultaneous votes for one choice needs six runs.
const (
	mostRuns   = 10
	firstPause = 5 * time.Millisecond
	mostPause  = 100 * time.Millisecond
)

// RetryTransaction runs a transaction up to ten times, as long as the server rolls it back because of concurrent
// transactions: a deadlock, or a serialization failure. run must be the whole transaction, so that a failed run leaves no
// effect. InTx does this by itself.
func RetryTransaction(ctx context.Context, run func() error) error {
	runs := 0
	return retry(ctx, firstPause, mostPause, run(), run, func(err error) bool {
		runs++
		return runs < mostRuns && rolledBack(err)
	})
}

// rolledBack reports whether the server rolled back a transaction that may succeed if it is run again.
func rolledBack(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pe.Code == pgerrcode.DeadlockDetected || pe.Code == pgerrcode.SerializationFailure)
}

// retry runs try again if it failed with err, until it succeeds, fails permanently, or ctx ends. The pauses begin at
// first and double up to most, give or take a half. failsafe-go's retry policy would add six frames to the stack of
// every lease.
func retry(ctx context.Context, first, most time.Duration, err error, try func() error, passes func(error) bool) error {
	for pause := first; err != nil && passes(err); pause = min(2*pause, most) {
		t := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // a jitter is no secret
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		err = try()
	}
	return err
}
