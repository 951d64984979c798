package activity

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
)

func TestAFailureForWantOfASlotIsNotOverWhileTheSlotsAreNotKnown(t *testing.T) {
	f := &ConnectFailure{Cause: db.SlotsExhausted, Limit: db.ServerLimit}
	if f.seenWith(Slots{}).Over || !f.seenWith(Slots{Max: 100, Used: 10}).Over {
		t.Error("unknown slots count as free, or free ones do not")
	}
}

func TestTheVerdictOnAProcessFollowsFromItsFigures(t *testing.T) {
	at := time.Now()
	holders := func(n int, age time.Duration) (hs []db.Holder) {
		for range n {
			hs = append(hs, db.Holder{Since: at.Add(-age), Where: "leak.go:71 lab.(*Lab).leak", PID: 4711})
		}
		return hs
	}
	for name, c := range map[string]struct {
		Process
		want  []string // level and code of each finding
		says  string   // of the first
		first string   // its first step
		lab   string
	}{
		"a pool in use is well": {Process: Process{Now: db.Stat{Size: 5, Leases: 3, Acquired: 900}}},
		"a full pool is well while its leases come back soon": {
			Process: Process{Now: db.Stat{Size: 5, Leases: 5, Waiting: 3, OldestWait: 20 * time.Millisecond, Waited: 700}},
		},
		"all leases are out for a moment": {Process: Process{Now: db.Stat{Size: 5, Leases: 5}, Stalled: seconds(4)}},
		"no lease comes back, and nobody asks": {
			Process: Process{Now: db.Stat{Size: 5, Leases: 5}, Stalled: seconds(12), Holders: holders(5, 12*time.Second)},
			want:    []string{"warning pool-stalled"}, says: "the next request waits in vain; 5 were asked for by leak.go:71",
			first: "in leak.go:71 lab.(*Lab).leak", lab: "ddtb lab run rows-not-closed",
		},
		"no lease comes back, and requests fail": {
			Process: Process{
				Now: db.Stat{Size: 5, Leases: 5, Waiting: 8, OldestWait: 7 * time.Second, TimedOut: 58}, Within: seconds(60),
				Stalled: seconds(28), FailedSinceStall: 58, FailedRecently: 8, Holders: holders(5, 28*time.Second),
			},
			want:  []string{"critical pool-stalled", "critical requests-lost"},
			says:  "all 5 leases of shop are out, and none came back for 28s: 8 requests wait, the first for 7s; 58 requests failed meanwhile",
			first: "release the lease on every way out", lab: "ddtb lab run rows-not-closed",
		},
		"leases come back too slowly": {
			Process: Process{
				Now: db.Stat{Strategy: db.Pool, Size: 1, Leases: 1, Waiting: 3, OldestWait: 2 * time.Second}, KeepsLeases: true,
			},
			want: []string{"warning pool-full"}, says: "the one lease of shop is out, and come", first: `hold = "query"`,
			lab: "ddtb lab run slow-query-pile-up",
		},
		"requests failed a while ago": {
			Process: Process{Now: db.Stat{Size: 5, TimedOut: 3, Refused: 1}, Within: seconds(60)},
			want:    []string{"warning requests-lost"}, says: "3 waited in vain, 1 were refused at once; none in the last 15s",
		},
		"a lease is out for too long": {
			Process: Process{Now: db.Stat{Size: 5, Leases: 1}, LeakAfter: seconds(60), Holders: holders(1, 2*time.Minute)},
			want:    []string{"warning lease-leak"}, says: "1 lease of shop out for longer than leak_after (1m)",
		},
		"nobody looks for leaks": {Process: Process{Now: db.Stat{Size: 5, Leases: 1}, Holders: holders(1, 2*time.Minute)}},
		"leases are taken back": {
			Process: Process{Now: db.Stat{Size: 5, Reclaimed: 2}, Within: seconds(60)},
			want:    []string{"warning lease-leak"}, says: "2 leases of shop had to be taken back in the last 1m",
		},
		"a request asks for a second lease": {
			Process: Process{Now: db.Stat{Size: 5, Nested: 1}, Within: seconds(60)},
			want:    []string{"warning nested-acquire"}, lab: "ddtb lab run nested-acquire",
		},
		"a replica serves no reads": {
			Process: Process{Replicas: []ReplicaUse{
				{Host: "r1:5432", Why: "it is 12s behind, and max_lag is 5s"}, {Host: "r2:5432", Serves: true},
			}},
			want: []string{"warning replica-unused"}, lab: "ddtb lab run fleet-failover",
			says: "shop reads from the primary in place of 1 replica: r1:5432 (it is 12s behind, and max_lag is 5s)",
		},
		"a replica was promoted, and will never catch up": {
			Process: Process{Replicas: []ReplicaUse{{Host: "r1:5432", Why: "it is not a standby: it was promoted, or is another server"}}},
			want:    []string{"warning replica-unused"}, says: "it was promoted", first: "or take it out of [databases.replica]",
			lab: "ddtb lab run fleet-failover",
		},
		"the slots are used up by a connection for each worker": {
			Process: Process{
				Now: db.Stat{Strategy: db.Persistent, Connects: 9, Connected: 2, Connecting: 1}, Past: db.Stat{Connects: 2, Connected: 2},
				Failure: &ConnectFailure{Cause: db.SlotsExhausted, Limit: db.ServerLimit}, Within: seconds(60),
			},
			want:  []string{"critical no-connection"},
			says:  "shop gets no new connection: slots exhausted, last 0s ago; 6 attempts to connect failed in the last 1m",
			first: `switch the strategy to "pool"`, lab: "ddtb lab run thread-leak",
		},
		"the slots are used up beside a pool": {
			Process: Process{Now: db.Stat{Strategy: db.Pool}, Failure: &ConnectFailure{Cause: db.SlotsExhausted, Limit: db.ServerLimit}},
			want:    []string{"critical no-connection"}, first: "doctor", lab: "ddtb lab run replicas-times-pool",
		},
		"a limit of the role is reached": {
			Process: Process{Now: db.Stat{Strategy: db.Persistent}, Failure: &ConnectFailure{Cause: db.SlotsExhausted, Limit: db.RoleLimit}},
			want:    []string{"critical no-connection"}, says: "slots exhausted (the limit of the role)", first: "which limit", lab: "ddtb lab run thread-leak",
		},
		"the server is down": {
			Process: Process{Failure: &ConnectFailure{Cause: db.CircuitOpen, Ago: seconds(2)}},
			want:    []string{"critical no-connection"}, says: "circuit open, last 2s ago",
			first: "recovers with it: `ddtb config check --connect`", lab: "ddtb lab run no-recovery",
		},
		"the server was down": {
			Process: Process{Failure: &ConnectFailure{Cause: db.ServerUnavailable, Ago: seconds(20), Over: true}},
			want:    []string{"warning no-connection"}, says: "that is over",
		},
		"the login is refused": {
			Process: Process{Failure: &ConnectFailure{Cause: db.LoginRejected}},
			want:    []string{"critical no-connection"}, first: "ddtb config check --connect",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.At, c.Application = at, "shop"
			found := c.Findings()
			var got []string
			for _, f := range found {
				got = append(got, f.Level.String()+" "+f.Code)
				if !slices.Contains(ProcessCodes, f.Code) || f.Do != f.Steps()[0].String() {
					t.Errorf("%s advises %q", f.Code, f.Do)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Fatalf("%q, want %q", got, c.want)
			}
			if len(found) > 0 && !(strings.Contains(found[0].What, c.says) && strings.Contains(found[0].Do, c.first) && strings.HasPrefix(found[0].Lab(), c.lab)) {
				t.Errorf("%s\n→ %s\n%s", found[0].What, found[0].Do, found[0].Lab())
			}
		})
	}
}

func TestEveryScenarioOfAProcessIsPlayedByTheLab(t *testing.T) {
	for _, name := range []string{"no-recovery", "thread-leak", "too-much-at-once", "replicas-times-pool", "rows-not-closed", "nested-acquire", "slow-query-pile-up", "fleet-failover"} {
		if scenarioOf(name) == nil {
			t.Errorf("there is no scenario %s", name)
		}
	}
}

func TestAProcessThatServesNoRequestIsWorseThanItsServer(t *testing.T) {
	dry := Process{Application: "shop", PID: 7, Now: db.Stat{Size: 1, Leases: 1, Waiting: 1}, Stalled: seconds(5), FailedSinceStall: 1}
	if h := (Health{}).With(dry); h.Level != Critical || h.Processes != 1 || !h.Findings[0].AboutProcess() {
		t.Errorf("%+v", h)
	}
	unknown := Health{Level: Unknown, Findings: []Finding{{Level: Unknown, Code: "unreachable"}}}
	if h := unknown.With(dry); h.Level != Critical {
		t.Errorf("unknown and critical are %s", h.Level)
	}
	if h := unknown.With(Process{}); h.Level != Unknown {
		t.Errorf("unknown and ok are %s", h.Level)
	}
	if h := (Health{}).With(dry, Process{}); !strings.Contains(h.Findings[0].What, "shop (process 7)") {
		t.Errorf("of two processes: %s", h.Findings[0].What)
	}
	d := Diagnose(Snapshot{Processes: []Process{dry}}, nil, ThresholdsOf(config.Monitor{}))
	if d.Culprit != "shop" || d.Scenario != nil || d.Lab != "ddtb lab run rows-not-closed" || len(d.Steps) < 2 {
		t.Errorf("the diagnosis: %+v", d)
	}
}

// TestAPoolThatIsDryStaysDryUntilALeaseComesBack monitors a real pool, from its first full moment to the next lease. It
// also requests the verdict through the socket, as `ddtb db-connections` does.
func TestAPoolThatIsDryStaysDryUntilALeaseComesBack(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		d, m := s.monitored(t)
		lease, err := d.Acquire(t.Context())
		must(t, err)
		defer lease.Release()
		m.Now() // sees it full
		if _, err := d.Acquire(t.Context()); db.CauseOf(err) != db.PoolTimeout {
			t.Fatal(err)
		}
		if p := m.Now(); p.Dry() || p.FailedSinceStall != 1 || p.FailedRecently != 1 || p.Stalled == 0 {
			t.Errorf("at first: %+v", p)
		}
		dir := shortTempDir(t)
		defer s.lend(t, dir, m)()
		eventually(t, "it is dry", func() bool { return m.Now().Dry() })
		cc, err := connConfig(d.Config())
		must(t, err)
		asked := AskProcesses(t.Context(), []string{dir}, cc)
		if len(asked) != 1 || asked[0].Level() != Critical || !strings.Contains(asked[0].Findings()[0].What, "process_test.go") {
			t.Errorf("through the socket: %+v", asked)
		}
		lease.Release()
		if p := m.Now(); p.Dry() || p.Stalled != 0 {
			t.Errorf("after the release: %+v", p)
		}
	})
}

// monitored returns a pool of one connection, whose lease the caller releases.
func (s *server) monitored(t *testing.T) (*db.DB, *ProcessMonitor) {
	t.Helper()
	cfg := s.config(app, "wall")
	cfg.Pool = db.DefaultSettings().Pool
	cfg.Pool.MaxSize, cfg.Pool.MinSize, cfg.Pool.Timeout = 1, 0, time.Second
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close(context.Background())) })
	m := StartProcessMonitor(d)
	t.Cleanup(m.Stop)
	return d, m
}

// lend has m answer through a socket in dir, until stop.
func (s *server) lend(t *testing.T, dir string, m *ProcessMonitor) (stop func()) {
	t.Helper()
	o := s.observer(t, app)
	o.Process = m.Now
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.Share(ctx, dir) }()
	cc, err := connConfig(s.config(app, "wall"))
	must(t, err)
	eventually(t, "it answers", func() bool { return len(AskProcesses(ctx, []string{dir}, cc)) == 1 })
	return func() {
		cancel()
		must(t, <-ended)
	}
}

func TestASwitchOfTheStrategyBeginsAnew(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		d, m := s.monitored(t)
		lease, err := d.Acquire(t.Context())
		must(t, err)
		defer lease.Release()
		if _, err := d.Acquire(t.Context()); err == nil {
			t.Fatal("a second lease of one")
		}
		if m.Now().Level() != Critical {
			t.Errorf("%+v", m.Now())
		}
		cfg := d.Config()
		cfg.Pool.MaxSize = 2
		must(t, d.Switch(t.Context(), cfg))
		if p := m.Now(); p.Level() != OK || p.Stalled != 0 {
			t.Errorf("after the switch: %+v", p.Findings())
		}
	})
}

func TestAFailureToConnectIsForgottenWithTheStrategyThatCausedIt(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		cfg := s.config(app, "wall")
		cfg.Strategy, cfg.Pool = db.Persistent, db.DefaultSettings().Pool
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		defer func() { must(t, d.Close(context.Background())) }()
		m := StartProcessMonitor(d)
		defer m.Stop()
		s.fill(t, app, "shop/persistent")
		if _, err := d.Acquire(t.Context()); db.CauseOf(err) != db.SlotsExhausted {
			t.Fatal(err)
		}
		if p := m.Now(); p.Failure == nil || p.scenarioOfFailure() != "thread-leak" {
			t.Fatalf("%+v", p.Findings())
		}
		cfg.Strategy = db.Pool
		must(t, d.Switch(t.Context(), cfg))
		if p := m.Now(); p.Failure != nil {
			t.Errorf("after the switch: %+v", p.Findings())
		}
	})
}

func TestAProcessThatFindsNoServerSaysSo(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		cfg := s.config(app, "wall")
		cfg.Password, cfg.Pool = "wrong", db.DefaultSettings().Pool
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		defer func() { must(t, d.Close(context.Background())) }()
		m := StartProcessMonitor(d)
		defer m.Stop()
		if _, err := d.Acquire(t.Context()); db.CauseOf(err) != db.LoginRejected {
			t.Fatal(err)
		}
		if p := m.Now(); p.Failure == nil || p.Failure.Over || p.Failure.Cause != db.LoginRejected || p.Level() != Critical {
			t.Errorf("%+v", p)
		}
	})
}

func TestWhoHasTheSlotsIsBlamedBeforeAPoolThatIsTooSmall(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		cfg := s.config(app, "wall")
		cfg.Pool = db.DefaultSettings().Pool
		cfg.Pool.MaxSize, cfg.Pool.Timeout = 2, time.Second
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		defer func() { must(t, d.Close(context.Background())) }()
		m := StartProcessMonitor(d)
		defer m.Stop()
		take := func() *db.Lease {
			lease, err := d.Acquire(t.Context())
			must(t, err)
			return lease
		}
		kept, moving := take(), take()
		defer func() { kept.Release(); moving.Release() }()
		if _, err := d.Acquire(t.Context()); db.CauseOf(err) != db.PoolTimeout {
			t.Fatal(err)
		}
		o, thresholds := s.observer(t, reader), defaults()
		thresholds.Critical = 99
		diagnosis := func() Diagnosis {
			now := snapshot(t, o)
			moving.Release()
			moving = take() // the pool has not stalled
			now.Processes = []Process{m.Now()}
			return Diagnose(now, nil, thresholds)
		}
		if got := diagnosis(); got.Health.Findings[0].Code != CodeLost || got.Culprit != "shop" {
			t.Errorf("while the server has room: %+v", got.Health.Findings)
		}
		for range s.usable() - 5 {
			s.session(t, other, "elsewhere", "billing")
		}
		got := diagnosis()
		if f := got.Health.Findings[0]; f.Code != "utilisation" || f.Level != Critical || got.Culprit != "billing" {
			t.Errorf("%q is blamed: %+v", got.Culprit, got.Health.Findings)
		}
	})
}

func TestAFullServerIsCriticalWhateverTheThresholdsAre(t *testing.T) {
	lenient := defaults()
	lenient.Warn, lenient.Critical = 100, 100
	if h := Assess(of(many(97, in(Active, time.Millisecond))), nil, lenient); h.Level != Critical {
		t.Errorf("%v: %+v", h.Level, h.Findings)
	}
	if h := Assess(of(many(96, in(Active, time.Millisecond))), nil, lenient); h.Level != OK {
		t.Errorf("one is free, and it is %v", h.Level)
	}
}
