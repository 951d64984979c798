package polls

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// tries bounds how often a transaction is run, with a pause of up to so many times firstPause between two runs, which
// makes half a second at most: a database that is serializable, with fifty votes for one choice at once, needs six.
const (
	tries      = 10
	firstPause = 10 * time.Millisecond
)

// again runs a transaction, and runs it once more where the server undid it because of others at the same rows: a
// deadlock, or a failure to serialize. It must be the whole transaction, so that nothing of it is left when it fails.
func again(ctx context.Context, run func() error) error {
	for n := 1; ; n++ {
		err := run()
		if n == tries || !undone(err) {
			return err
		}
		t := time.NewTimer(rand.N(time.Duration(n) * firstPause)) //nolint:gosec // a jitter is no secret
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

func undone(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pe.Code == pgerrcode.DeadlockDetected || pe.Code == pgerrcode.SerializationFailure)
}
