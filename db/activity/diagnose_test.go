package activity

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheDoctorKnowsTheScenariosByTheirLook(t *testing.T) {
	busy := many(50, in(Active, time.Millisecond))
	for _, c := range []struct {
		scenario, culprit, first string
		sessions                 Snapshot
	}{
		{
			"thread-leak", "web", "close-idle --older-than=5m --application=web",
			of(oneByOne(many(80, with(in(Idle, 10*time.Minute), func(x *Session) { x.Application = "web" })))),
		},
		{
			"thread-leak", "shop/persistent", "close-idle --older-than=30s --application=shop/persistent",
			of(many(80, with(in(Idle, 40*time.Second), func(x *Session) { x.Application = "shop/persistent" }))),
		},
		{
			"replicas-times-pool", "web", "status", // a pool that opens with its program
			of(many(80, with(in(Idle, 10*time.Minute), func(x *Session) { x.Application, x.Age = "web", x.InState+1 }))),
		},
		{
			"replicas-times-pool", "shop/pool", "status",
			of(many(80, with(in(Idle, 2*time.Minute), func(x *Session) { x.Address = "10.0.0.%d" }))),
		},
		{
			"replicas-times-pool", "shop/pool", "close-idle --older-than=1m --application=shop/pool",
			of(many(90, with(in(Idle, 2*time.Minute), func(x *Session) { x.Address = "10.0.0.%d" }))),
		},
		{
			"hidden-second-pool", "shop/pool", "status", // they are in use
			of(many(40, in(Idle, time.Second)), many(35, with(in(Idle, time.Second), func(x *Session) { x.Application = "jobs" }))),
		},
		{
			"replicas-times-pool", "web", "status", // a pool in use beside a small one at rest
			of(
				many(30, with(in(Active, time.Millisecond), func(x *Session) { x.Application = "web" })),
				many(45, with(in(Idle, 100*time.Millisecond), func(x *Session) { x.Application = "web" })),
				many(10, with(in(Idle, 7*time.Minute), func(x *Session) { x.Address = "10.0.0.9" })),
			),
		},
		{
			"hidden-second-pool", "leaky", "close-idle --older-than=5m --application=leaky", // beside a pool that was warmed a moment ago
			of(
				many(30, with(in(Idle, 10*time.Minute), func(x *Session) { x.Application = "leaky" })),
				many(60, with(in(Idle, 5*time.Second), func(x *Session) { x.Application, x.Age = "web", x.InState+1 })),
			),
		},
		{
			"noisy-neighbour", "it's theirs", `close-idle --older-than=5m --application='it'\''s theirs' --database=elsewhere`,
			of(many(80, with(in(Idle, time.Hour), func(x *Session) { x.Application, x.Database = "it's theirs", "elsewhere" }))),
		},
		{
			"monitor-leaks", "postgres_exporter", "close-idle --older-than=5m --application=postgres_exporter",
			of(many(80, with(in(Idle, time.Hour), func(x *Session) { x.Application = "postgres_exporter" }))),
		},
		{
			"replicas-times-pool", "user app", "close-idle --older-than=5m --application='' --user=app",
			of(many(90, with(in(Idle, time.Hour), func(x *Session) { x.Application = "" }))),
		},
		{
			"listen-pins-slot", "shop/pool", "status",
			of(many(80, with(in(Idle, time.Hour), func(x *Session) { x.Query = " listen news" }))),
		},
		{
			"leaked-transaction", "jobs", "close-idle --in-transaction --older-than=5m --application=jobs",
			of(busy, many(20, with(in(IdleInTransaction, 10*time.Minute), func(x *Session) { x.Application = "jobs" }))),
		},
		{
			"call-inside-transaction", "shop/pool", "status",
			of(many(75, in(IdleInTransaction, 3*time.Second))),
		},
		{
			"rows-not-closed", "export", "force-close --pid=",
			of(busy, many(20, with(in(Active, 10*time.Second), func(x *Session) { x.Application, x.Wait = "export", "Client/ClientWrite" }))),
		},
		{
			"slow-query-pile-up", "shop/pool", "cancel --pid=",
			of(many(75, in(Active, 20*time.Second))),
		},
		{
			"too-much-at-once", "shop/pool", "status",
			of(many(90, in(Active, time.Millisecond))),
		},
		{
			"leaked-transaction", "report", "close-idle --in-transaction --older-than=0s --pid=7",
			of(
				many(1, with(in(IdleInTransaction, 20*time.Second), func(x *Session) { x.PID, x.Application = 7, "report" })),
				many(30, with(in(Active, 10*time.Second), func(x *Session) { x.Waits, x.Waited, x.BlockedBy = true, x.InState, []int32{7} })),
				many(50, in(Idle, time.Second)),
			),
		},
		{
			"lock-queue", "migrate", "cancel --pid=7",
			of(
				many(1, with(in(Active, 20*time.Second), func(x *Session) { x.PID, x.Application = 7, "migrate" })),
				many(30, with(in(Active, 10*time.Second), func(x *Session) { x.Waits, x.Waited, x.BlockedBy = true, x.InState, []int32{7} })),
			),
		},
		{
			"migrate-refused", "replica", "close-idle --older-than=0s --pid=7", // its lock is the session's, which does nothing more
			of(
				many(1, with(in(Idle, 20*time.Second), func(x *Session) { x.PID, x.Application = 7, "replica" })),
				many(30, with(in(Active, 10*time.Second), func(x *Session) {
					x.Waits, x.Waited, x.BlockedBy, x.Wait = true, x.InState, []int32{7}, "Lock/advisory"
				})),
			),
		},
		{
			"lock-queue", "prepared transaction", "pg_prepared_xacts",
			preparing(of(many(30, with(in(Active, 10*time.Second), func(x *Session) { x.Waits, x.Waited, x.BlockedBy = true, x.InState, []int32{0} })))),
		},
		{
			"noisy-neighbour", "theirs", "GRANT pg_read_all_stats",
			of(many(80, Session{Kind: ClientBackend, Hidden: true, Application: "theirs", User: "other", Database: "wall"})),
		},
	} {
		d := Diagnose(c.sessions, nil, defaults())
		if d.Scenario == nil || d.Scenario.Name != c.scenario || d.Culprit != c.culprit {
			t.Errorf("want %s by %s, got %+v by %s", c.scenario, c.culprit, d.Scenario, d.Culprit)
			continue
		}
		if (d.Also != nil) != (d.ToTell != "") {
			t.Errorf("%s, or %+v: to tell: %q", c.scenario, d.Also, d.ToTell)
		}
		if len(d.Steps) < 3 || !strings.Contains(d.Steps[0].Command, c.first) {
			t.Errorf("%s: the first of %d steps is %q, want %q", c.scenario, len(d.Steps), d.Steps[0].Command, c.first)
		}
		for _, step := range d.Steps {
			if step.Do == "" || step.Hurts == "" {
				t.Errorf("%s: a step does not say what to do, or who is hurt by it: %+v", c.scenario, step)
			}
		}
		if d.Lab != "ddtb lab run "+c.scenario || d.Health.Findings[0].Do != d.Steps[0].String() {
			t.Errorf("%s: %q; health advises %q, the doctor %q", c.scenario, d.Lab, d.Health.Findings[0].Do, d.Steps[0])
		}
	}
}

func TestAdviceAboutALockGoesToTheRoleThatItConcerns(t *testing.T) {
	root := func(s Session) Session {
		s.PID, s.Application, s.User = 7, "billing", "billing"
		return s
	}
	waits := func(n int, first, behind int32, wait string) []Session {
		sessions := many(n, with(in(Active, 10*time.Second), func(x *Session) {
			x.Application, x.User, x.Waits, x.Waited, x.Wait, x.BlockedBy = "web", "app", true, x.InState, wait, []int32{behind}
		}))
		for i := range sessions {
			sessions[i].PID = first + int32(i)
		}
		return sessions
	}
	paused := root(in(IdleInTransaction, 20*time.Second))
	migration := waits(1, 8, 7, "Lock/relation")
	migration[0].Application, migration[0].User = "migrate", "dba"
	for name, c := range map[string]struct {
		now           Snapshot
		culprit       string
		first, second string // of the steps
		setting       string
	}{
		"a transaction pauses, and rows of it are wanted": {
			of([]Session{paused}, waits(4, 100, 7, "Lock/transactionid")), "billing",
			"--pid=7", "", `ALTER ROLE "billing" SET idle_in_transaction_session_timeout`,
		},
		"a query works, and rows of it are wanted": {
			of([]Session{root(in(Active, 20*time.Second))}, waits(4, 100, 7, "Lock/transactionid")), "billing",
			"cancel --pid=7", "", `ALTER ROLE "app" SET lock_timeout`,
		},
		"a migration waits for a paused transaction, and all others for it": {
			of([]Session{paused}, migration, waits(4, 100, 8, "Lock/relation")), "migrate",
			"cancel --pid=8", "", `ALTER ROLE "dba" SET lock_timeout`,
		},
		"a migration waits, and others wait for the paused transaction itself": {
			of([]Session{paused}, migration, waits(4, 100, 8, "Lock/relation"), waits(5, 200, 7, "Lock/transactionid")), "billing",
			"cancel --pid=8", "--pid=7", `ALTER ROLE "billing" SET idle_in_transaction_session_timeout`,
		},
		"the same, but the other waits are for somebody else": {
			of([]Session{paused}, migration, waits(4, 100, 8, "Lock/relation"), waits(1, 200, 100, "Lock/transactionid")), "migrate",
			"cancel --pid=8", "", `ALTER ROLE "dba" SET lock_timeout`,
		},
		"a migration waits for a backup": {
			of([]Session{with(paused, func(x *Session) { x.Application = "pg_dump" })}, migration), "migrate",
			"status", "", `ALTER ROLE "dba" SET lock_timeout`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := Diagnose(c.now, nil, defaults())
			if d.Culprit != c.culprit || !strings.HasSuffix(d.Steps[0].Command, c.first) || !strings.HasSuffix(d.Steps[1].Command, c.second) && c.second != "" {
				t.Errorf("%s: %q", d.Culprit, d.Steps)
			}
			if !slices.ContainsFunc(d.Steps, func(s Step) bool { return strings.Contains(s.Command, c.setting) }) {
				t.Errorf("%q lacks %s", d.Steps, c.setting)
			}
			if last := d.Steps[len(d.Steps)-1]; last.Do != "watch the waits end" {
				t.Errorf("the last step is %q", last)
			}
		})
	}
}

func TestAMovingQueueIsNoLeak(t *testing.T) {
	turn := func(pid int32, at time.Time) Snapshot {
		s := of(many(1, with(in(IdleInTransaction, 100*time.Millisecond), func(x *Session) { x.PID, x.InTransaction = pid, x.InState })),
			many(4, with(in(Active, 10*time.Second), func(x *Session) {
				x.Waits, x.Waited, x.Wait, x.BlockedBy = true, x.InState, "Lock/transactionid", []int32{pid}
			})))
		s.Sessions[0].PID, s.At = pid, at
		return s
	}
	before := turn(7, time.Now())
	d := Diagnose(turn(8, before.At.Add(time.Second)), &before, defaults())
	if d.Scenario.Name != "lock-queue" || !strings.Contains(d.Steps[0].Do, "the queue moves") || !strings.Contains(d.Steps[1].Do, "shorter") {
		t.Errorf("%+v: %q", d.Scenario, d.Steps)
	}
}

func TestAProcessWithoutAClientMayBeTheOnlyOneThatWaits(t *testing.T) {
	slow := with(in(Active, 2*time.Minute), func(x *Session) { x.PID = 7 })
	s := of([]Session{slow})
	s.Sessions = append(s.Sessions, Session{PID: 8, Kind: AutovacuumWorker, Waits: true, Wait: "Lock/relation", BlockedBy: []int32{7}, InQuery: Age(time.Minute)})
	if d := Diagnose(s, nil, defaults()); d.Health.Findings[0].Code != "long-query" || len(d.Steps) < 2 {
		t.Errorf("%+v", d)
	}
}

func TestWhatIsHiddenNeitherMovesNorRests(t *testing.T) {
	before := of(many(1, Session{Kind: ClientBackend, Hidden: true, Application: "billing"}), many(3, with(in(Active, 10*time.Second), func(x *Session) {
		x.Waits, x.Waited, x.BlockedBy = true, x.InState, []int32{1}
	})))
	before.Sessions[0].PID = 1
	now := before
	now.At = before.At.Add(time.Second)
	for _, h := range Diagnose(now, &before, defaults()).Holds {
		if h.Application == "billing" && strings.Contains(h.Evidence(), "moved") {
			t.Error(h.Evidence())
		}
	}
}

func TestARaisedLimitLeavesRoom(t *testing.T) {
	s := of(many(5, with(in(Active, time.Second), func(x *Session) { x.User = "app" })))
	s.Limits = []Limit{{Of: "role", Name: "app", Used: 5, Max: 3}}
	if d := Diagnose(s, nil, defaults()); !strings.Contains(d.Steps[0].Command, `ALTER ROLE "app" CONNECTION LIMIT 10`) {
		t.Errorf("%q", d.Steps)
	}
	s.Slots.Used = s.Slots.Max
	for _, step := range Diagnose(s, nil, defaults()).Steps {
		if strings.Contains(step.Command, "CONNECTION LIMIT") {
			t.Errorf("without a free slot: %q", step)
		}
	}
}

// oneByOne lets sessions begin one after another, each for one query.
func oneByOne(sessions []Session) []Session {
	for i := range sessions {
		x := &sessions[i]
		x.InState += Age(i) * Age(time.Second)
		x.Age = x.InState + 1
	}
	return sessions
}

func preparing(s Snapshot) Snapshot {
	s.Prepared = []Prepared{{GID: "it's", Database: "elsewhere", Owner: "app", Age: Age(time.Second)}}
	return s
}

func TestTheDoctorFindsAStampedeAfterARestart(t *testing.T) {
	before := of(many(80, in(Idle, time.Millisecond)))
	before.Server.Started = before.At.Add(-30 * time.Second)
	now := before
	now.At, now.EverConnects = before.At.Add(time.Second), 50
	now.Came = many(5, in(Idle, time.Millisecond))
	if d := Diagnose(now, &before, defaults()); d.Scenario == nil || d.Scenario.Name != "reconnect-stampede" {
		t.Errorf("%+v", d.Scenario)
	}
}

func TestSessionsThatBeginOnceAreNoChurn(t *testing.T) {
	pool := func(s Snapshot, firstPID int32, age time.Duration) Snapshot {
		s.Sessions = many(30, in(Idle, 0))
		for i := range s.Sessions {
			s.Sessions[i].PID, s.Sessions[i].Age, s.Sessions[i].Started = firstPID+int32(i), Age(age), s.At.Add(-age)
		}
		s.count()
		return s
	}
	empty := of()
	before := pool(empty, 100, time.Hour)
	later := func(s Snapshot) Snapshot {
		s.At, s.EverConnects = before.At.Add(time.Second), before.EverConnects+30
		return s
	}
	restarted := later(empty)
	restarted.Server.Started = before.At.Add(500 * time.Millisecond)
	for name, c := range map[string]struct{ before, now Snapshot }{
		"a pool fills": {empty, pool(later(empty), 200, 500*time.Millisecond)},
		"it filled before, and the server counts it late": {before, later(pool(empty, 100, 2*time.Second))},
		"its program was restarted":                       {before, pool(later(empty), 200, 500*time.Millisecond)},
		"the server was restarted":                        {pool(empty, 100, 2*time.Second), pool(restarted, 200, 100*time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			if d := Diagnose(c.now, &c.before, defaults()); d.Health.Level != OK {
				t.Errorf("%+v", d.Health.Findings)
			}
		})
	}
}

func TestTheDoctorBlamesNobodyWhenAllIsWell(t *testing.T) {
	d := Diagnose(of(many(10, in(Idle, time.Hour))), nil, defaults())
	if d.Culprit != "" || d.Scenario != nil || len(d.Steps) != 0 || len(d.Holds) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestADiagnosisFromTheDatabasePostgresFindsNoNeighbour(t *testing.T) {
	s := of(oneByOne(many(80, with(in(Idle, 10*time.Minute), func(x *Session) { x.Application = "web" }))))
	s.Database = "postgres"
	if d := Diagnose(s, nil, defaults()); d.Scenario.Name != "thread-leak" ||
		!strings.HasSuffix(d.Steps[0].Command, "--application=web --database=wall") {
		t.Errorf("%+v, %+v", d.Scenario, d.Steps)
	}
}

func TestALimitHitsTheCulpritAlone(t *testing.T) {
	exporter := with(in(Idle, time.Hour), func(x *Session) { x.Application, x.User = "postgres_exporter", "watcher" })
	elsewhere := with(in(Idle, time.Hour), func(x *Session) { x.Application, x.Database = "theirs", "elsewhere" })
	for name, c := range map[string]struct {
		sessions Snapshot
		want     string
	}{
		"a role of its own":            {of(many(60, exporter), many(5, in(Idle, time.Second))), `ALTER ROLE "watcher" CONNECTION LIMIT 3`},
		"the role of others":           {of(many(60, with(exporter, func(x *Session) { x.User = "app" })), many(5, in(Idle, 0))), "CREATE ROLE its_own LOGIN CONNECTION LIMIT 3"},
		"a database of its own":        {of(many(60, elsewhere), many(5, in(Idle, time.Second))), `ALTER DATABASE "elsewhere" CONNECTION LIMIT 48`},
		"nobody else is on the server": {of(many(60, exporter)), `ALTER ROLE "watcher" CONNECTION LIMIT 3`},
	} {
		if d := Diagnose(c.sessions, nil, defaults()); len(d.Steps) < 3 || !strings.Contains(d.Steps[1].Command, c.want) {
			t.Errorf("%s: %+v", name, d.Steps)
		}
	}
}

func TestNoFixChangesASettingForOthersThanTheCulprit(t *testing.T) {
	slow := func(application, user string) Session {
		return with(in(Active, 20*time.Minute), func(x *Session) { x.Application, x.User, x.Superuser = application, user, user == "postgres" })
	}
	hidden := of(many(1, slow("reports", "reader")))
	hidden.Server.Standby = true
	for name, c := range map[string]struct {
		sessions Snapshot
		want     string
	}{
		"an ordinary role":            {of(many(1, slow("reports", "reader"))), `ALTER ROLE "reader" SET statement_timeout`},
		"a superuser":                 {of(many(1, slow("psql", "postgres"))), "CREATE ROLE its_own LOGIN; ALTER ROLE its_own SET statement_timeout"},
		"a backup":                    {of(many(1, slow("pg_dump", "backup"))), command("status")},
		"a superuser's backup":        {of(many(1, slow("pg_dump", "postgres"))), command("status")},
		"a standby of an unknown one": {hidden, `psql -U postgres -d wall -c 'ALTER ROLE "reader" SET statement_timeout`},
		"a backup between two statements": {
			of(many(1, with(in(IdleInTransaction, 20*time.Minute), func(x *Session) { x.Application = "pg_dump" }))), command("status"),
		},
	} {
		d := Diagnose(c.sessions, nil, defaults())
		fix := d.Steps[len(d.Steps)-2].Command
		if !strings.Contains(fix, c.want) || strings.Contains(fix, "ALTER SYSTEM") {
			t.Errorf("%s: %s", name, fix)
		}
	}
}

func TestSessionsWithoutANameAreChosenAsSuch(t *testing.T) {
	nameless := with(in(Idle, time.Hour), func(x *Session) { x.Application = "" })
	s := of(many(3, nameless), many(5, in(Idle, time.Hour)))
	if got := Plan(s, Filter{Nameless: true}).Sessions; len(got) != 3 {
		t.Errorf("%d of 3", len(got))
	}
}

func TestEveryScenarioIsDescribed(t *testing.T) {
	for i, s := range scenarios {
		if s.Number != i+1 || s.Cause == "" || slices.IndexFunc(scenarios, func(x Scenario) bool { return x.Name == s.Name }) != i {
			t.Errorf("%+v", s)
		}
	}
	for pair, how := range apart {
		if pair[0] >= pair[1] || scenarioOf(pair[0]) == nil || scenarioOf(pair[1]) == nil || how == "" {
			t.Errorf("%v", pair)
		}
	}
}

func TestTheDoctorsFirstStepFreesALockQueueAndEndsNothingElse(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		owner := s.session(t, app, "wall", "report")
		exec(t, owner, "CREATE TABLE IF NOT EXISTS stock (n int)")
		exec(t, owner, "BEGIN; SELECT * FROM stock")
		altering := s.session(t, app, "wall", "migrate")
		o := s.observer(t, app)
		done := make(chan error, 4)
		ctx := t.Context()
		go func() { _, err := altering.Exec(ctx, "ALTER TABLE stock ADD COLUMN IF NOT EXISTS m int"); done <- err }()
		pollUntil(t, o, "the change waits", func(now Snapshot) bool { return find(t, now, "migrate").Waits })
		for range 3 {
			conn := s.session(t, app, "wall", "shop/pool")
			go func() { _, err := conn.Exec(ctx, "SELECT * FROM stock"); done <- err }()
		}
		now := pollUntil(t, o, "all wait", func(now Snapshot) bool {
			return len(now.clients(func(x Session) bool { return x.Waits && len(x.BlockedBy) > 0 })) == 4
		})
		d := Diagnose(now, nil, defaults())
		if d.Culprit != "migrate" || d.Scenario.Name != "lock-queue" || !strings.HasSuffix(d.Steps[0].Command, "cancel --pid="+fmtPID(altering)) {
			t.Fatalf("%s: %+v", d.Culprit, d.Steps)
		}
		got, err := Cancel(t.Context(), o, find(t, now, "migrate"), false)
		must(t, err)
		if got.Outcome != Cancelled {
			t.Errorf("%+v", got)
		}
		failed := 0
		for range 4 {
			if <-done != nil {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("%d of 4 statements failed", failed)
		}
		exec(t, owner, "COMMIT") // it lost nothing
	})
}

func TestUnseenShortSessionsAreAStampedeOnlyAfterARestart(t *testing.T) {
	for up, want := range map[time.Duration]*Scenario{time.Minute: scenarioOf("reconnect-stampede"), time.Hour: nil} {
		before, now := of(), of()
		now.At, now.EverConnects = before.At.Add(time.Second), before.EverConnects+30
		before.Server.Started, now.Server.Started = now.At.Add(-up), now.At.Add(-up)
		d := Diagnose(now, &before, defaults())
		if d.Scenario != want || d.Culprit != "clients that connect for each piece of work" {
			t.Errorf("up for %v: %v, %q", up, d.Scenario, d.Culprit)
		}
	}
}

func TestALoginIsNoFindingUntilItHangs(t *testing.T) {
	logins := func(age time.Duration) Snapshot {
		return of(many(9, Session{Kind: ClientBackend, State: starting, Age: Age(age)}))
	}
	now := logins(time.Second / 2)
	if d := Diagnose(now, nil, defaults()); d.Health.Level != OK || len(d.Holds) != 0 || len(now.Services()) != 0 || now.Extras() != 1 {
		t.Errorf("under way: %+v, %+v", d, now.Services())
	}
	d := Diagnose(logins(2*time.Second), nil, defaults())
	if d.Culprit != "clients that don't finish their login" || d.Holds[0].Reason != LogsIn || d.Health.Findings[0].Code != "login" {
		t.Errorf("two seconds old: %+v", d)
	}
}
