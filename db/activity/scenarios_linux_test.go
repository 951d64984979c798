package activity

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"ddtb/db"
)

// stage is a monitored server on which a test reproduces a scenario with real sessions.
type stage struct {
	*testing.T
	*server
}

// from opens a session with a client address of its own; all of 127.0.0.0/8 is this machine, on Linux.
func (s *stage) from(address, role, application string) *pgx.Conn {
	s.Helper()
	cc, err := db.ConnConfig(s.config(role, "wall"), application)
	must(s.T, err)
	cc.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
	conn, err := pgx.ConnectConfig(s.Context(), cc)
	must(s.T, err)
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// each opens n sessions, each of which runs the statement and stays.
func (s *stage) each(n int, role, database, application, sql string) {
	s.Helper()
	for range n {
		exec(s.T, s.session(s.T, role, database, application), sql)
	}
}

// running opens n sessions in which a statement runs.
func (s *stage) running(n int, role, database, application, sql string) {
	s.Helper()
	for range n {
		runs(s.T, s.session(s.T, role, database, application), sql)
	}
}

// stock makes a table, and fills it with more than a socket's buffers hold.
func (s *stage) stock() {
	owner := s.session(s.T, app, "wall", "owner")
	exec(s.T, owner, "DROP TABLE IF EXISTS stock; CREATE TABLE stock AS SELECT n, repeat('x', 1000) AS text FROM generate_series(1, 20000) n")
	must(s.T, owner.Close(s.Context()))
}

// unread begins n sessions that ask for all of the stock, and don't read it.
func (s *stage) unread(n int, application, sql string) {
	s.Helper()
	for range n {
		conn := s.session(s.T, app, "wall", application)
		frontend := conn.PgConn().Frontend()
		frontend.SendQuery(&pgproto3.Query{String: sql})
		must(s.T, frontend.Flush())
		s.Cleanup(func() { _ = conn.PgConn().Conn().Close() }) // the server gives up, because the client does not read
	}
}

type scene struct {
	scenario, also, culprit string
	role                    string // who looks; "": app
	play                    func(*stage)
	thresholds              func(*Thresholds)
}

// inLab are the scenarios that app/lab's test has the doctor recognise while the lab plays them.
var inLab = []string{
	"thread-leak", "missed-close", "too-much-at-once", "leaked-transaction", "cancel-snowball", "lock-queue",
	"probe-connects", "listen-pins-slot",
}

// scenes are cases that the lab's scenarios don't show: names, addresses and roles by which the doctor distinguishes
// scenarios. Each is polled until the doctor's result is as expected, because sessions take a moment to reach their
// state.
var scenes = []scene{
	{
		scenario: "too-much-at-once", culprit: "shop/per-request",
		play:       func(s *stage) { s.running(13, app, "wall", "shop/per-request", "SELECT pg_sleep(60)") },
		thresholds: func(t *Thresholds) { t.Slow = time.Hour },
	},
	{
		scenario: "rows-not-closed", also: "stream-holds-lease", culprit: "report",
		play: func(s *stage) {
			s.stock()
			s.unread(12, "report", "SELECT * FROM stock")
		},
	},
	{
		scenario: "call-inside-transaction", also: "leaked-transaction", culprit: "checkout",
		play: func(s *stage) { s.each(12, app, "wall", "checkout", "BEGIN; SELECT 1") },
	},
	{
		scenario: "call-inside-transaction", also: "nested-acquire", culprit: "shop/pool",
		play:       func(s *stage) { s.each(12, app, "wall", "shop/pool", "BEGIN; SELECT 1") },
		thresholds: func(t *Thresholds) { t.Own = 12 },
	},
	{
		scenario: "stream-holds-lease", also: "rows-not-closed", culprit: "export",
		play: func(s *stage) {
			s.stock()
			s.unread(12, "export", "COPY stock TO STDOUT")
		},
	},
	{
		scenario: "stream-holds-lease", also: "call-inside-transaction", culprit: "export",
		play: func(s *stage) {
			for range 12 {
				conn := s.session(s.T, app, "wall", "export")
				exec(s.T, conn, "BEGIN; DECLARE rows CURSOR FOR SELECT * FROM generate_series(1, 100)")
				exec(s.T, conn, "FETCH 10 FROM rows")
			}
		},
	},
	{
		scenario: "slow-query-pile-up", also: "cancel-snowball", culprit: "report",
		play:       func(s *stage) { s.running(12, app, "wall", "report", "SELECT pg_sleep(60)") },
		thresholds: func(t *Thresholds) { t.Slow = time.Millisecond },
	},
	{
		scenario: "replicas-times-pool", culprit: "shop/pool",
		play: func(s *stage) {
			for i := range 10 {
				exec(s.T, s.from(fmt.Sprintf("127.0.0.%d", 2+i%5), app, "shop/pool"), "SELECT 1")
			}
		},
	},
	{
		scenario: "hidden-second-pool", also: "replicas-times-pool", culprit: "user app",
		play: func(s *stage) {
			s.each(2, app, "wall", "shop/pool", "SELECT 1")
			s.each(8, app, "wall", "", "SELECT 1")
		},
	},
	{
		scenario: "migrate-refused", also: "lock-queue", culprit: "replica 1",
		play: func(s *stage) {
			exec(s.T, s.session(s.T, app, "wall", "replica 1"), "SELECT pg_advisory_lock(42)")
			s.running(4, app, "wall", "replica 2", "SELECT pg_advisory_lock(42)")
		},
	},
	{
		scenario: "migrate-refused", also: "lock-queue", culprit: "replica 2",
		play: func(s *stage) { s.each(8, app, "wall", "replica 2", "SELECT pg_try_advisory_lock(42)") },
	},
	{
		scenario: "monitor-leaks", culprit: "postgres_exporter",
		play: func(s *stage) {
			s.each(2, app, "wall", "shop/pool", "SELECT 1")
			s.each(8, app, "wall", "postgres_exporter", "SELECT 1")
		},
	},
	{
		scenario: "half-open", also: "replicas-times-pool", culprit: "shop/pool",
		play: func(s *stage) {
			for range 9 {
				exec(s.T, s.from("127.0.0.9", app, "shop/pool"), "SELECT 1")
			}
			s.running(2, app, "wall", "shop/pool", "SELECT pg_sleep(60)")
		},
		thresholds: func(t *Thresholds) { t.Silent, t.Slow = time.Millisecond, time.Hour },
	},
	{
		scenario: "noisy-neighbour", culprit: "billing", role: reader,
		play: func(s *stage) { s.each(12, other, "elsewhere", "billing", "SELECT 1") },
	},
	{
		scenario: "noisy-neighbour", culprit: "billing", role: reader,
		play: func(s *stage) {
			s.each(2, app, "wall", "shop/pool", "SELECT 1")
			s.running(10, other, "wall", "billing", "SELECT pg_sleep(60)")
		},
		thresholds: func(t *Thresholds) { t.Slow = time.Hour },
	},
	{
		scenario: "noisy-neighbour", culprit: "billing", // of which this role sees no more
		play: func(s *stage) { s.each(12, other, "elsewhere", "billing", "SELECT 1") },
	},
}

func TestTheDoctorDistinguishesRealSessions(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		for _, scene := range scenes {
			t.Run(scene.scenario+" of "+scene.culprit, func(t *testing.T) {
				t.Cleanup(func() { s.mustBecomeEmpty(t) })
				role := app
				if scene.role != "" {
					role = scene.role
				}
				o, err := NewObserver(s.config(role, "wall"))
				must(t, err)
				t.Cleanup(o.Close)
				thresholds := defaults()
				thresholds.Idle = time.Millisecond
				if scene.thresholds != nil {
					scene.thresholds(&thresholds)
				}
				scene.play(&stage{t, s})
				said := ""
				defer func() { t.Log(said) }()
				eventually(t, "the doctor says so", func() bool {
					d := Diagnose(snapshot(t, o), nil, thresholds)
					if d.Scenario == nil {
						said = fmt.Sprint("all is well: ", d.Health.Slots)
						return false
					}
					also := ""
					if d.Also != nil {
						also = d.Also.Name
					}
					said = d.Scenario.Name + " or " + also + " by " + d.Culprit
					return d.Scenario.Name == scene.scenario && also == scene.also && d.Culprit == scene.culprit && len(d.Steps) >= 3
				})
			})
		}
	})
}

func TestEachScenarioIsPlayedOrSaidToBeUnseen(t *testing.T) {
	for _, s := range Scenarios() {
		played := slices.Contains(inLab, s.Name) || slices.ContainsFunc(scenes, func(x scene) bool { return x.scenario == s.Name || x.also == s.Name }) ||
			slices.ContainsFunc(situations, func(x situation) bool { return x.scenario == s.Name })
		if played == (s.Unseen != "") {
			t.Errorf("%s is played %v, and unseen because %q", s.Name, played, s.Unseen)
		}
	}
}
