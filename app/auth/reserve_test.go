package auth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// exhausted makes services of an application that has its one connection out. over is a reserve with a connection of its
// own.
func exhausted(t *testing.T) (with func(reserve auth.Runner) *auth.Service, over auth.Runner) {
	t.Helper()
	cfg := dbtest.Config(t)
	cfg.Strategy, cfg.Pool.MaxSize, cfg.Pool.Timeout = db.Pool, 1, time.Second
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	with = func(reserve auth.Runner) *auth.Service {
		return auth.New(d, config.Admin{SessionAge: time.Hour}, reserve)
	}
	if _, err := with(nil).CreateSuperuser(t.Context(), "ada", "", good, false); err != nil {
		t.Fatal(err)
	}
	lease, err := d.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lease.Release(); _ = d.Close(context.Background()) })
	spare := dbtest.Control(t, cfg)
	return with, func(ctx context.Context, fn func(context.Context, db.Querier) error) error {
		return pgx.BeginFunc(ctx, spare, func(tx pgx.Tx) error { return fn(ctx, tx) })
	}
}

func TestStaffSignInOverTheReserveWhenNoConnectionCanBeHad(t *testing.T) {
	with, over := exhausted(t)
	if _, err := with(nil).Login(t.Context(), "ada", good, here, ""); db.CauseOf(err) != db.PoolTimeout {
		t.Errorf("without a reserve: %v", err)
	}
	s := with(over)
	session, err := s.Login(t.Context(), "ada", good, here, "")
	if err != nil {
		t.Fatal(err)
	}
	var u *auth.User
	err = over(t.Context(), func(ctx context.Context, q db.Querier) (err error) {
		u, err = auth.RecheckThrough(auth.WithSecret(ctx, s, session.Secret), q)
		return err
	})
	if err != nil || u == nil || u.Username != "ada" {
		t.Errorf("the new session is that of %+v, %v", u, err)
	}
	if _, err := s.Login(t.Context(), "ada", "wrong", here, ""); !errors.Is(err, auth.ErrWrongLogin) {
		t.Errorf("a wrong password: %v", err)
	}
	for _, failure := range []error{fault.New(fault.Busy, "Busy."), context.DeadlineExceeded, errors.New("a bug")} {
		s := with(func(context.Context, func(context.Context, db.Querier) error) error { return failure })
		if _, err := s.Login(t.Context(), "ada", good, there, ""); db.CauseOf(err) != db.PoolTimeout {
			t.Errorf("where the reserve fails with %v: %v", failure, err)
		}
	}
}
