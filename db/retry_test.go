package db_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
)

func TestATransactionThatCollidesWithAnotherIsRunAgain(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, control, _ := open(t, set)
		if _, err := control.Exec(t.Context(), "CREATE TABLE sums AS SELECT 0 AS n; GRANT ALL ON sums TO PUBLIC", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		runs := 0
		err := d.InTx(t.Context(), func(q db.Querier) error {
			runs++
			if _, err := q.Exec(t.Context(), "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"); err != nil {
				return err
			}
			var n int
			if err := q.QueryRow(t.Context(), "SELECT n FROM sums").Scan(&n); err != nil {
				return err
			}
			if runs == 1 {
				if _, err := control.Exec(t.Context(), "UPDATE sums SET n = 41"); err != nil {
					t.Error(err)
				}
			}
			_, err := q.Exec(t.Context(), "UPDATE sums SET n = $1", n+1)
			return err
		})
		var n int
		if err := errors.Join(err, control.QueryRow(t.Context(), "SELECT n FROM sums").Scan(&n)); err != nil || n != 42 || runs != 2 {
			t.Errorf("after %d runs %d, %v", runs, n, err)
		}
		if held := d.Holders(); len(held) > 0 {
			t.Errorf("a lease is out: %+v", held)
		}
	})
}

func TestWhatIsUndoneForEverAndWhatIsNotUndoneEnd(t *testing.T) {
	deadlock := &pgconn.PgError{Code: pgerrcode.DeadlockDetected}
	for _, c := range []struct {
		err  error
		runs int
	}{
		{nil, 1},
		{errors.New("a bug"), 1},
		{&pgconn.PgError{Code: pgerrcode.UniqueViolation}, 1},
		{deadlock, 10},
	} {
		runs := 0
		if err := db.RetryTransaction(t.Context(), func() error { runs++; return c.err }); !errors.Is(err, c.err) || runs != c.runs {
			t.Errorf("%v: %d runs, %v", c.err, runs, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	err := db.RetryTransaction(ctx, func() error { runs++; cancel(); return deadlock })
	if !errors.Is(err, deadlock) || runs != 1 {
		t.Errorf("after its context ended: %d runs, %v", runs, err)
	}
}
