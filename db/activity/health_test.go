package activity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// of is a snapshot of a server with 100 slots, 97 of them usable, with these sessions.
func of(sessions ...[]Session) Snapshot {
	s := Snapshot{
		At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Database: "wall", Application: "shop",
		Server:   Server{Version: "15.13", VersionNum: 150013, ForSuper: 3, Address: "db:5432", Superuser: "postgres"},
		Role:     Role{Name: "app"},
		Slots:    Slots{Max: 100},
		Sessions: slices.Concat(sessions...),
	}
	s.Server.Started = s.At.Add(-time.Hour)
	for i := range s.Sessions {
		x := &s.Sessions[i]
		if x.PID == 0 {
			x.PID = int32(100 + i)
		}
		x.Started = s.At.Add(-x.Age.Duration())
	}
	s.count()
	return s
}

// many are n sessions like x, on different clients if its address has a verb.
func many(n int, x Session) []Session {
	out := make([]Session, n)
	for i := range out {
		out[i] = x
		if strings.Contains(x.Address, "%d") {
			out[i].Address = fmt.Sprintf(x.Address, i%8)
		}
	}
	return out
}

// a session of the shop that has been in the state for a time.
func in(state string, inState time.Duration) Session {
	x := Session{
		Kind: ClientBackend, Application: "shop/pool", User: "app", Database: "wall", Address: "10.0.0.1",
		State: state, InState: Age(inState), Age: Age(inState + time.Hour), Query: "SELECT 1", MayEnd: true,
	}
	if state == Active {
		x.InQuery = x.InState
	}
	if x.InTransactionIdle() {
		x.InTransaction = x.InState
	}
	return x
}

func with(x Session, change func(*Session)) Session {
	change(&x)
	return x
}

func TestTheVerdictFollowsFromTheSessions(t *testing.T) {
	busy := in(Active, time.Millisecond)
	autovacuum := with(in(Active, time.Hour), func(x *Session) { x.Kind = AutovacuumWorker })
	replication := with(in(Active, 100*time.Hour), func(x *Session) { x.Kind = WALSender })
	hidden := Session{Kind: ClientBackend, Hidden: true, Application: "theirs", User: "other", Database: "wall"}
	waits := with(in(Active, time.Second), func(x *Session) { x.Waits, x.Waited, x.BlockedBy = true, Age(time.Second), []int32{7} })
	owner := with(in(IdleInTransaction, 2*time.Second), func(x *Session) { x.PID = 7 })
	for name, c := range map[string]struct {
		sessions Snapshot
		level    Level
		codes    string
	}{
		"nobody":                                    {of(), OK, ""},
		"67 of 97, 69 %":                            {of(many(67, busy)), OK, ""},
		"68 of 97, 70.1 %":                          {of(many(68, busy)), Warning, "utilisation"},
		"82 of 97, 84.5 %":                          {of(many(82, busy)), Warning, "utilisation"},
		"83 of 97, 85.6 %":                          {of(many(83, busy)), Critical, "utilisation"},
		"into the reserved ones":                    {of(many(100, busy)), Critical, "utilisation"},
		"half of them idle":                         {of(many(30, busy), many(30, in(Idle, time.Minute))), OK, ""},
		"more than half idle for a moment":          {of(many(29, busy), many(60, in(Idle, 200*time.Millisecond))), Critical, "utilisation"},
		"more than half idle":                       {of(many(29, busy), many(30, in(Idle, time.Minute))), Warning, "idle"},
		"a small pool that rests":                   {of(many(10, in(Idle, time.Hour))), OK, ""},
		"idle in transaction for a minute":          {of(many(1, in(IdleInTransaction, time.Minute))), OK, ""},
		"for longer":                                {of(many(1, in(IdleInTransaction, time.Minute+1))), Warning, "idle-in-transaction"},
		"for longer, after an error":                {of(many(1, in(IdleInTransactionEr, time.Hour))), Warning, "idle-in-transaction"},
		"a query of a minute":                       {of(many(1, in(Active, time.Minute))), OK, ""},
		"a longer one":                              {of(many(1, in(Active, time.Hour))), Warning, "long-query"},
		"autovacuum and replication may take long":  {of(many(90, autovacuum), many(90, replication)), OK, ""},
		"one that waits for a lock for a second":    {of([]Session{owner, waits}), OK, ""},
		"three that do":                             {of([]Session{owner}, many(3, waits)), Warning, "lock-queue"},
		"one that waits for long":                   {of([]Session{owner, with(waits, func(x *Session) { x.Waited = Age(time.Minute) })}), Warning, "lock-queue"},
		"what can't be seen is counted, not judged": {of(many(50, hidden)), OK, ""},
		"the gravest comes first":                   {of(many(1, in(IdleInTransaction, time.Hour)), many(90, busy)), Critical, "utilisation idle-in-transaction"},
	} {
		h := Assess(c.sessions, nil, defaults())
		var codes []string
		for _, f := range h.Findings {
			codes = append(codes, f.Code)
			if f.What == "" || f.Do == "" || f.Level < Warning {
				t.Errorf("%s: a finding without its what or do: %+v", name, f)
			}
		}
		if h.Level != c.level || strings.Join(codes, " ") != c.codes {
			t.Errorf("%s: %v, %v; want %v, %s", name, h.Level, codes, c.level, c.codes)
		}
	}
}

func TestAQueueForALockNamesTheOneWhomAllWaitFor(t *testing.T) {
	reader := with(in(IdleInTransaction, 20*time.Second), func(x *Session) { x.PID, x.Application = 7, "report" })
	alter := with(in(Active, 15*time.Second), func(x *Session) { x.PID, x.Waits, x.Waited, x.BlockedBy = 8, true, x.InState, []int32{7} })
	behind := with(in(Active, 10*time.Second), func(x *Session) { x.Waits, x.Waited, x.BlockedBy = true, x.InState, []int32{8} })
	queue := of([]Session{reader, alter}, many(5, behind))
	if roots := queue.Roots(); len(roots) != 1 || roots[0].PID != 7 {
		t.Errorf("the roots are %+v", roots)
	}
	h := Assess(queue, nil, defaults())
	if len(h.Findings) != 1 || h.Findings[0].PIDs[0] != 7 || !strings.Contains(h.Findings[0].What, "6 sessions wait") ||
		!strings.Contains(h.Findings[0].What, "behind pid 7, report, idle in transaction for 20s") {
		t.Errorf("%+v", h.Findings)
	}
	hidden := many(3, Session{Kind: ClientBackend, Hidden: true, Waits: true})
	if h := Assess(of(hidden), nil, defaults()); len(h.Findings) != 1 || h.Findings[0].What != "3 sessions wait for a lock" {
		t.Errorf("for how long can't be seen: %+v", h.Findings)
	}
}

func TestTwoThatWaitForEachOtherHaveNoRoot(t *testing.T) {
	a := with(in(Active, 1), func(x *Session) { x.PID, x.Waits, x.BlockedBy = 1, true, []int32{2} })
	b := with(in(Active, 1), func(x *Session) { x.PID, x.Waits, x.BlockedBy = 2, true, []int32{1} })
	if roots := of([]Session{a, b}).Roots(); len(roots) != 0 {
		t.Errorf("%+v", roots)
	}
}

func TestChurnIsJudgedBetweenTwoLooks(t *testing.T) {
	before := of(many(5, in(Idle, time.Second)))
	before.EverConnects = 1000
	now := before
	now.At = before.At.Add(2 * time.Second)
	now.EverConnects = 1019
	if h := Assess(now, &before, defaults()); h.Level != OK {
		t.Errorf("9.5 a second: %+v", h)
	}
	now.EverConnects = 1020
	if h := Assess(now, &before, defaults()); h.Level != Warning || h.Findings[0].Code != "churn" {
		t.Errorf("10 a second: %+v", h)
	}
	now.EverConnects = 0 // the statistics were reset
	if h := Assess(now, &before, defaults()); h.Level != OK {
		t.Errorf("after a reset: %+v", h)
	}
	before.EverConnects = 0 // PostgreSQL 12 and 13 don't count: what was seen to come is the least
	now.Came = many(20, in(Idle, 0))
	if h := Assess(now, &before, defaults()); h.Level != Warning || !strings.HasPrefix(h.Findings[0].What, "at least 10 sessions") {
		t.Errorf("where the server does not count: %+v", h)
	}
}

func TestAServerThatCannotBeReachedIsUnknownAndAFullOneCritical(t *testing.T) {
	if h := Unreachable(&db.ConnError{Cause: db.ServerUnavailable, Err: errors.New("refused")}); h.Level != Unknown {
		t.Errorf("%+v", h)
	}
	if h := Unreachable(&db.ConnError{Cause: db.SlotsExhausted, Err: errors.New("full")}); h.Level != Critical {
		t.Errorf("%+v", h)
	}
}

func TestDurationsAreWrittenShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 400 * time.Millisecond: "0.4s", 10 * time.Second: "10s", time.Minute: "1m", 65 * time.Second: "1m 5s",
		3*time.Hour + 20*time.Minute: "3h 20m", 49 * time.Hour: "2d 1h", 48 * time.Hour: "2d",
	} {
		if got := Short(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}

func TestAServerThatRefusesALoginIsNeverOK(t *testing.T) {
	refusedBy := func(routine string) error {
		return &db.ConnError{Cause: db.SlotsExhausted, Err: &pgconn.PgError{Code: "53300", Routine: routine}}
	}
	for _, free := range []int{1, 4, 5, 90} {
		s := of(many(97-free, in(Active, time.Millisecond)))
		s.Refused(refusedBy("InitPostgres"))
		if h := Assess(s, nil, defaults()); h.Level != Critical {
			t.Errorf("with %d slots that seem free: %s, %+v", free, h.Level, h.Findings)
		}
	}
	s := of()
	s.Refused(refusedBy("InitializeSessionUserId"))
	if h := Assess(s, nil, defaults()); h.Level != OK {
		t.Errorf("a role's own limit is no limit of the server: %s, %+v", h.Level, h.Findings)
	}
}

func TestThePhrasesOfTheTwoLooksSayWhatMovesAndWhatDoesNot(t *testing.T) {
	before := of(many(10, in(Idle, time.Minute)))
	now := of(many(10, in(Idle, time.Minute)))
	now.At = before.At.Add(time.Second)
	if got := Diagnose(now, &before, defaults()).Holds[0].Evidence(); !strings.HasSuffix(got, "; none moved in the last second") {
		t.Error(got)
	}
	now.Sessions[0].InState = Age(time.Millisecond)
	if got := Diagnose(now, &before, defaults()).Holds[0].Evidence(); !strings.HasSuffix(got, "; 1 moved in the last second") {
		t.Error(got)
	}
	now.Sessions[1].Started = now.At
	if got := Diagnose(now, &before, defaults()).Holds[0]; got.Began != 1 || got.Moved != 1 || !strings.HasSuffix(got.Evidence(), "; growing: 1 began in the last second") {
		t.Errorf("%+v", got)
	}
	if got := Diagnose(now, nil, defaults()).Holds[0].Evidence(); strings.Contains(got, "last second") {
		t.Errorf("from one look: %s", got)
	}
}

func TestAnApplicationOnAStandbyIsAWarningUnlessItIsMeantToRead(t *testing.T) {
	s := of(many(3, in(Idle, time.Minute)))
	s.Server.Standby = true
	if h := Assess(s, nil, defaults()); h.Level != Warning || h.Findings[0].Code != "read-only" {
		t.Errorf("%+v", h)
	}
	reads := defaults()
	reads.Replica = true
	if h := Assess(s, nil, reads); h.Level != OK {
		t.Errorf("%+v", h)
	}
}

func TestARoleThatMayOnlyReadIsNoFindingWhileProgramsHaveAnother(t *testing.T) {
	for by, c := range map[string]struct{ role, statement string }{
		"role":             {"app", `ALTER ROLE "app" SET`},
		"role in database": {"app", `ALTER ROLE "app" IN DATABASE "wall" SET`},
		"database":         {"auditor", `ALTER DATABASE "wall" SET`},
		"":                 {"auditor", `ALTER DATABASE "wall" SET`},
	} {
		s := of(many(3, in(Idle, time.Second)))
		s.Server.ReadOnly, s.Server.ReadOnlyBy, s.Role.Name = true, by, c.role
		h := Assess(s, nil, defaults())
		if len(h.Findings) != 1 || !strings.Contains(h.Findings[0].Do, c.statement) || strings.Count(h.Findings[0].Do, "ALTER") != 1 {
			t.Errorf("%q: %+v", by, h.Findings)
		}
		s.Role.Name = "auditor"
		if h := Assess(s, nil, defaults()); strings.HasPrefix(by, "role") && h.Level != OK {
			t.Errorf("%q, of the monitoring role: %+v", by, h.Findings)
		}
	}
}

func TestALimitIsJudgedWithoutTheMonitoringSessionAndAdvisedOnByWhoReachesIt(t *testing.T) {
	limited := func(slots, most int, sessions []Session) Snapshot {
		s := of(sessions)
		s.Slots.Max, s.Limits = slots, []Limit{{Of: "role", Name: "watcher", Max: most}}
		s.count()
		return s
	}
	of := func(application string) Session {
		return with(in(Idle, time.Second), func(x *Session) { x.Application, x.User = application, "watcher" })
	}
	self := with(of("ddtb/db-connections"), func(x *Session) { x.Self = true })
	if h := Assess(limited(100, 1, many(1, self)), nil, defaults()); h.Level != OK {
		t.Errorf("the check itself: %+v", h.Findings)
	}
	for name, c := range map[string]struct {
		s    Snapshot
		does string
	}{
		"an application":                {limited(100, 5, many(5, of("web"))), "raise the limit"},
		"an application, on a full one": {limited(8, 5, many(5, of("web"))), "make the pools of web smaller"},
		"a monitoring program":          {limited(100, 3, many(3, of("postgres_exporter"))), "let the monitoring keep one connection"},
	} {
		h := Assess(c.s, nil, defaults())
		i := slices.IndexFunc(h.Findings, func(f Finding) bool { return f.Code == "limit" })
		if i < 0 || !strings.HasPrefix(h.Findings[i].Do, c.does) {
			t.Errorf("%s: %+v", name, h.Findings)
		}
	}
}

func TestALostReplicationSlotFillsNoDisk(t *testing.T) {
	lost, unread := WALSlot{Name: "gone", Status: "lost"}, WALSlot{Name: "slow", Status: "extended", Retained: 1 << 30}
	for first, slots := range map[string][]WALSlot{"gone": {lost}, "slow": {lost, unread}} {
		s := of()
		s.WALSlots = slots
		d := Diagnose(s, nil, defaults())
		f := d.Health.Findings[0]
		if !strings.Contains(f.What, first) || strings.Contains(f.What, "disk is full") != (first == "slow") {
			t.Errorf("%s: %s", first, f.What)
		}
		if drops := strings.Contains(f.Do, "pg_drop_replication_slot"); drops != (first == "gone") {
			t.Errorf("%s: %s", first, f.Do)
		}
	}
}

func TestAPoolOfPgBouncerGrowsByTheSettingThatBoundsIt(t *testing.T) {
	pool := func(user string, servers int) Pool {
		return Pool{Database: "wall", User: user, ClientWaiting: 4, MaxWait: Age(2 * time.Second), ServerActive: servers}
	}
	for name, c := range map[string]struct {
		pools []Pool
		b     bouncer
		free  int
		want  string
	}{
		"the size of each pool":           {[]Pool{pool("a", 20)}, bouncer{poolSize: 20, pools: 1, databases: 1}, 50, "SET default_pool_size = 24"},
		"ten pools and ten free slots":    {[]Pool{pool("a", 5)}, bouncer{poolSize: 5, pools: 10, databases: 10}, 10, "SET default_pool_size = 6"},
		"ten pools and few free slots":    {[]Pool{pool("a", 5)}, bouncer{poolSize: 5, pools: 10, databases: 10}, 9, "a larger size of its own in pgbouncer.ini"},
		"the connections of its database": {[]Pool{pool("a", 10), pool("b", 10)}, bouncer{poolSize: 20, perDatabase: 20, pools: 2, databases: 1}, 50, "SET max_db_connections = 24"},
		"none left of its database":       {[]Pool{pool("a", 0), pool("b", 20)}, bouncer{poolSize: 20, perDatabase: 20, pools: 2, databases: 1}, 50, "SET max_db_connections = 24"},
		"a database that is paused":       {[]Pool{pool("a", 0)}, bouncer{poolSize: 20, pools: 1, databases: 1}, 50, "RESUME"},
		"another setting":                 {[]Pool{pool("a", 10)}, bouncer{poolSize: 20, pools: 1, databases: 1}, 50, "SHOW DATABASES"},
	} {
		s := of(many(1, in(Active, time.Millisecond)))
		s.Slots.Max += c.free - s.Slots.Free()
		s.Pools, s.bouncer = c.pools, &c.b
		h := Assess(s, nil, defaults())
		if i := slices.IndexFunc(h.Findings, func(f Finding) bool { return f.Code == "pooler" }); i < 0 || !strings.Contains(h.Findings[i].Do, c.want) {
			t.Errorf("%s: %+v", name, h.Findings)
		}
	}
}

func TestAPoolOfPgBouncerIsTroubleByHowLongItsClientsWait(t *testing.T) {
	pool := func(name string, waiting int, wait time.Duration) Pool {
		return Pool{Database: name, User: "app", ClientWaiting: waiting, MaxWait: Age(wait), ServerActive: 3}
	}
	for name, c := range map[string]struct {
		pools []Pool
		level Level
		says  string
	}{
		"many wait for a moment":        {[]Pool{pool("a", 50, 50*time.Millisecond)}, OK, ""},
		"some wait for longer":          {[]Pool{pool("a", 3, 500*time.Millisecond)}, Warning, "3 clients wait"},
		"two wait for a second":         {[]Pool{pool("a", 2, time.Second)}, OK, ""},
		"three wait for a second":       {[]Pool{pool("a", 3, time.Second)}, Critical, "3 clients wait"},
		"one waits for long":            {[]Pool{pool("a", 1, time.Minute)}, Critical, "1 client waits"},
		"one waits beside a busy queue": {[]Pool{pool("a", 50, 50*time.Millisecond), pool("b", 1, time.Minute)}, Critical, "pool b"},
	} {
		s := of(many(3, in(Active, time.Millisecond)))
		s.Pools = c.pools
		h := Assess(s, nil, defaults())
		if h.Level != c.level || c.says != "" && !strings.Contains(h.Findings[0].What, c.says) {
			t.Errorf("%s: %v, %+v", name, h.Level, h.Findings)
		}
	}
}

func TestAdviceToReachAServerFollowsFromHowItFailed(t *testing.T) {
	unavailable := func(err error) error { return &db.ConnError{Cause: db.ServerUnavailable, Err: err} }
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"nobody listens":       {unavailable(dial(syscall.ECONNREFUSED)), "nothing listens there"},
		"there is no socket":   {unavailable(dial(syscall.ENOENT)), "nothing listens there"},
		"no name":              {unavailable(dial(&net.DNSError{Err: "no such host", Name: "db"})), "name can't be resolved"},
		"it says nothing":      {unavailable(context.DeadlineExceeded), "does not answer in time"},
		"a file is missing":    {fmt.Errorf("unable to read CA file: %w", syscall.ENOENT), "see that the server runs"},
		"the monitor is busy":  {ErrBusy, "see that the server runs"},
		"anything else failed": {unavailable(errors.New("closed")), "see that the server runs"},
	} {
		t.Run(name, func(t *testing.T) {
			if do := Unreachable(c.err).Findings[0].Do; !strings.Contains(do, c.says) {
				t.Errorf("%v: %q", c.err, do)
			}
		})
	}
}
