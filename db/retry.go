package db

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// A transaction that was undone is run so often at most, with pauses that add up to about half a second: a database
// that is serializable, with fifty votes for one choice at once, needs six runs.
const (
	mostRuns   = 10
	firstPause = 5 * time.Millisecond
	mostPause  = 100 * time.Millisecond
)

// Again runs a transaction up to ten times, as long as the server undoes it because of others at the same rows: a
// deadlock, or a failure to serialize. It must be the whole transaction, so that nothing of it is left
// when it fails. InTx does so by itself.
func Again(ctx context.Context, run func() error) error {
	err := run()
	if err == nil {
		return nil
	}
	runs := 0
	return retry(ctx, firstPause, mostPause, err, run, func(err error) bool {
		runs++
		return runs < mostRuns && undone(err)
	})
}

// undone reports whether the server undid a transaction that may succeed when it is run again.
func undone(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pe.Code == pgerrcode.DeadlockDetected || pe.Code == pgerrcode.SerializationFailure)
}

// retry runs try again after it failed with err, until it succeeds, fails in a way that does not pass, or ctx ends. The
// pauses between begin at first, and double up to most, give or take a half. failsafe-go's retry policy would add six
// frames to the stack of every lease.
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
