package auth_test

import (
	"context"
	"testing"
	"time"

	"ddtb/app/auth"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// who is UserFrom in a new request.
func who(t *testing.T, s *auth.Service, secret string) *auth.User {
	t.Helper()
	u, err := auth.UserFrom(auth.WithSecret(t.Context(), s, secret))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// small is a service with a signed-in superuser on a pool of one lease, and a clock to turn.
func small(t *testing.T) (s *auth.Service, d *db.DB, secret string, forward func(time.Duration)) {
	t.Helper()
	cfg := dbtest.Config(t)
	cfg.Pool.MaxSize, cfg.Pool.Timeout = 1, 2*time.Second
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, secret, forward = signedIn(t, d)
	return s, d, secret, forward
}

// signedIn is a service with a signed-in superuser on d, which it closes, and a clock to turn.
func signedIn(t *testing.T, d *db.DB) (s *auth.Service, secret string, forward func(time.Duration)) {
	t.Helper()
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	s = auth.New(d, config.Admin{SessionAge: time.Hour}, nil)
	now := time.Now()
	auth.SetClock(s, func() time.Time { return now })
	if _, err := s.CreateSuperuser(t.Context(), "ada", "", good, false); err != nil {
		t.Fatal(err)
	}
	return s, login(t, s, good).Secret, func(by time.Duration) { now = now.Add(by) }
}

// exhaust holds the only lease until back is called.
func exhaust(t *testing.T, d *db.DB) (back func()) {
	t.Helper()
	l, err := d.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l.Release
}

func TestWhoIsSignedInNeedsNoConnectionUnderExhaustion(t *testing.T) {
	s, d, secret, forward := small(t)
	if who(t, s, secret) == nil {
		t.Fatal("not signed in")
	}
	defer exhaust(t, d)()
	for _, after := range []time.Duration{0, 29 * time.Second, time.Minute, 8 * time.Minute} {
		forward(after)
		if who(t, s, secret) == nil {
			t.Errorf("%s later: nobody", after)
		}
	}
	forward(time.Minute)
	if u, err := auth.UserFrom(auth.WithSecret(t.Context(), s, secret)); err == nil {
		t.Errorf("after more than ten minutes: %v", u)
	}
}

func TestRecheckAsksTheDatabaseEachTime(t *testing.T) {
	s, d, secret, _ := small(t)
	who(t, s, secret)
	ctx := auth.WithSecret(t.Context(), s, secret)
	exec(t, d, `UPDATE auth_user SET is_active = false`)
	if who(t, s, secret) == nil {
		t.Error("within 30 seconds a page to read should not ask")
	}
	if u, err := auth.Recheck(ctx); u != nil || err != nil {
		t.Errorf("got %v, %v", u, err)
	}
	if who(t, s, secret) != nil {
		t.Error("what Recheck found out is not remembered")
	}
	back := exhaust(t, d)
	defer back()
	if _, err := auth.Recheck(ctx); db.CauseOf(err) != db.PoolTimeout {
		t.Errorf("under exhaustion: %v", err)
	}
}

func TestARevocationElsewhereIsSeenWithinThirtySeconds(t *testing.T) {
	s, d, secret, forward := small(t)
	who(t, s, secret)
	exec(t, d, `DELETE FROM ddtb_session`)
	forward(31 * time.Second)
	if u := who(t, s, secret); u != nil {
		t.Errorf("still %v", u)
	}
}

func TestAnUnknownOrEmptySecretIdentifiesNoUser(t *testing.T) {
	s, d, secret, _ := small(t)
	for _, other := range []string{"", "x", secret + "A", secret[1:], "AAAA" + secret[4:], "\x00", string(make([]byte, 10_000))} {
		if u := who(t, s, other); u != nil {
			t.Errorf("%.20q: %v", other, u)
		}
	}
	defer exhaust(t, d)()
	if u := who(t, s, "nonsense"); u != nil { // and asks nothing
		t.Error(u)
	}
	if u, err := auth.UserFrom(t.Context()); u != nil || err != nil {
		t.Errorf("without the middleware: %v, %v", u, err)
	}
}

func TestASessionLastsItsAgeThoughTheClocksOfServerAndDatabaseDiffer(t *testing.T) {
	for _, off := range []time.Duration{-2 * time.Hour, 2 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			s, d, _, forward := small(t)
			forward(off) // the age is an hour
			secret := login(t, s, good).Secret
			if who(t, s, secret) == nil {
				t.Error("not signed in")
			}
			s.Forget()
			if who(t, s, secret) == nil {
				t.Error("not signed in, by the database")
			}
			forward(59 * time.Minute)
			if who(t, s, secret) == nil {
				t.Error("it ended early")
			}
			exec(t, d, "UPDATE ddtb_session SET expires = now()")
			s.Forget()
			if who(t, s, secret) != nil {
				t.Error("it does not end")
			}
		})
	}
}

func TestNoReplicaUndoesAChangeThatWasMadeHere(t *testing.T) {
	primary := dbtest.NewServer(t, dbtest.Replicated())
	cfg := primary.Config(t)
	standby := primary.NewReplica(t)
	replica := standby.Reach(cfg)
	replica.MaxLag = 10 * time.Minute
	d, err := db.OpenWith(cfg, db.Options{Replica: &replica})
	if err != nil {
		t.Fatal(err)
	}
	s, secret, forward := signedIn(t, d)
	who := func() *auth.User { // in a request of a client without a position
		ctx, end := d.Begin(t.Context())
		defer end()
		u, err := auth.UserFrom(auth.WithSecret(ctx, s, secret))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	there := standby.Control(t, cfg.Name)
	dbtest.Eventually(t, "the replica has the session", func() bool {
		var n int
		err := there.QueryRow(t.Context(), `SELECT count(*) FROM ddtb_session`).Scan(&n)
		return err == nil && n == 1 && d.Replicas()[0].Serves
	})
	if u := who(); u == nil || d.Replicas()[0].Reads != 1 {
		t.Fatalf("the replica answered %d reads, the last with %v", d.Replicas()[0].Reads, u)
	}
	dbtest.Eventually(t, "the replica stands still", func() bool {
		var state string
		err := there.QueryRow(t.Context(), `SELECT pg_get_wal_replay_pause_state() FROM pg_wal_replay_pause()`).Scan(&state)
		return err == nil && state == "paused"
	})
	exec(t, d, `UPDATE auth_user SET is_active = false`)
	s.Forget()
	if u := who(); u != nil {
		t.Errorf("still %v", u)
	}
	forward(19 * time.Minute)
	if u := who(); u != nil {
		t.Errorf("while the replica may lag, it is asked again: %v", u)
	}
	forward(time.Minute)
	if who() == nil {
		t.Error("the replica, which has the session, is never asked again")
	}
}

func TestALookupWithAnotherWayToAnswerIsNotRetriedInAnOutage(t *testing.T) {
	server := dbtest.NewServer(t, dbtest.Options{})
	d, err := db.Open(t.Context(), server.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	s, secret, forward := signedIn(t, d)
	who(t, s, secret)
	server.Stop(t, "fast")
	dbtest.Eventually(t, "no connection is attempted", func() bool {
		_, err := d.Exec(t.Context(), "SELECT")
		return db.CauseOf(err) == db.CircuitOpen
	})
	forward(time.Minute)
	began := time.Now()
	if who(t, s, secret) == nil {
		t.Error("the cached user is not used")
	}
	if took := time.Since(began); took > 900*time.Millisecond { // as long as a retry would take
		t.Errorf("with a cached user it took %s", took)
	}
	s.Forget()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := auth.UserOnce(auth.WithSecret(ctx, s, secret)); db.CauseOf(err) == "" || ctx.Err() != nil {
		t.Errorf("UserOnce: %v, and its context: %v", err, ctx.Err())
	}
}
