package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

func TestAStarvedPgBouncerIsCriticalAndTheStepsEndItsQueue(t *testing.T) { // alone, for it counts free slots
	m, direct := withDatabase(t)
	b := newBouncerFor(m, direct, direct.User+"\nadmin_users = "+direct.User)
	for range 3 * pooledServers {
		clientOfBouncer(m, b)
	}
	text := "host=%s port=%d user=%s password=%s dbname=%s sslmode=disable"
	dsn := fmt.Sprintf(text, direct.Host, direct.Port, direct.User, direct.Password.Reveal(), direct.Name)
	console := fmt.Sprintf(text, b.cfg.Host, b.cfg.Port, b.cfg.User, b.cfg.Password.Reveal(), "pgbouncer")
	m.configure(direct)
	args := func(action ...string) []string {
		return append([]string{"db-connections", "--dsn", dsn, "--pgbouncer", console}, action...)
	}
	var d activity.Diagnosis
	dbtest.Eventually(t, "clients wait in PgBouncer", func() bool {
		d = printed[activity.Diagnosis](t, m.run("", args("doctor", "--json")...).out)
		return strings.HasPrefix(d.Culprit, "PgBouncer's pool") && strings.Contains(d.Health.Findings[0].What, fmt.Sprintf("%d clients wait", 2*pooledServers)) &&
			d.Health.Level == activity.Critical // when they have waited for a second
	})
	m.run("", args("health")...).must(2, "CRITICAL", "clients wait in PgBouncer", "$PGBOUNCER stands for")
	if d.Health.Findings[0].Code != "pooler" {
		t.Fatalf("%+v", d.Health)
	}
	nameless := strings.Replace(console, "dbname=pgbouncer", "", 1) // psql would go to a database of the user's name
	o := m.run("", "db-connections", "--dsn", dsn, "--pgbouncer", nameless, "doctor", "--json")
	if first := printed[activity.Diagnosis](t, o.out).Steps[0].Command; !strings.Contains(first, "-d pgbouncer -c 'SET default_pool_size") {
		t.Error(first)
	}
	for _, s := range d.Steps[:2] {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", s.Command)
		cmd.Env = append(os.Environ(), "PGBOUNCER="+console)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", s.Command, err, out)
		}
	}
	dbtest.Eventually(t, "nobody waits", func() bool {
		waiting, active := 0, 0
		for _, p := range printed[activity.Status](t, m.run("", args("status", "--json")...).out).Pools {
			waiting, active = waiting+p.ClientWaiting, active+p.ServerActive
		}
		return waiting == 0 && active == 3*pooledServers
	})
}

func TestAPgBouncerThatRefusesClientsIsCriticalAndTheStepsLetThemIn(t *testing.T) {
	t.Parallel()
	m, direct := withDatabase(t)
	b := newBouncerFor(m, direct, direct.User+"\nadmin_users = "+direct.User+"\nmax_client_conn = 4")
	m.configure(b.cfg, `pooler = "pgbouncer"`, fmt.Sprintf("direct_host = %q", b.cfg.DirectHost), fmt.Sprintf("direct_port = %d", b.cfg.DirectPort))
	connect := func() (*pgx.Conn, error) {
		cc, err := db.ConnConfig(b.cfg, "web")
		if err != nil {
			return nil, err
		}
		return pgx.ConnectConfig(m.Context(), cc)
	}
	var err error
	for range 6 {
		var conn *pgx.Conn
		if conn, err = connect(); err != nil {
			break
		}
		m.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	if err == nil {
		t.Fatal("PgBouncer refused nobody")
	}
	m.run("", "db-connections", "health").must(2, "CRITICAL", "PgBouncer has 4 of 4 clients (max_client_conn)")
	d := printed[activity.Diagnosis](t, m.run("", "db-connections", "doctor", "--json").out)
	if d.Culprit != "PgBouncer's max_client_conn" {
		t.Fatalf("%+v", d)
	}
	for _, s := range d.Steps {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", s.Command)
		cmd.Env = append(os.Environ(), "PGPASSWORD="+b.cfg.Password.Reveal())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", s.Command, err, out)
		}
	}
	conn, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}

func TestWhoHasTheSlotsIsBlamedBeforeAPoolThatCanNotGrow(t *testing.T) {
	t.Parallel()
	const usable = 7 * pooledServers // idle, the crowd outweighs PgBouncer's queries even when they are slow ones
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: usable + 3})
	m, direct := newMachine(t), server.Config(t)
	b := newBouncerFor(m, direct, direct.User)
	m.configure(b.cfg, `pooler = "pgbouncer"`, fmt.Sprintf("direct_host = %q", direct.Host), fmt.Sprintf("direct_port = %d", direct.Port))
	control, used := dbtest.Control(t, direct), 0
	for range 2 * pooledServers {
		clientOfBouncer(m, b)
	}
	dbtest.Eventually(t, "PgBouncer has its connections", func() bool {
		return control.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'").Scan(&used) == nil && used == pooledServers
	})
	for range usable - pooledServers - 2 { // the control session has one, and one is for the command
		cc, err := db.ConnConfig(direct, "crowd")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.ConnectConfig(t.Context(), cc)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	var d activity.Diagnosis
	dbtest.Eventually(t, "the pool is starved", func() bool {
		d = printed[activity.Diagnosis](t, m.run("", "db-connections", "doctor", "--json").out)
		return slices.ContainsFunc(d.Health.Findings, func(f activity.Finding) bool { return f.Code == "pooler" && f.Level == activity.Critical })
	})
	if d.Culprit != "crowd" || d.Health.Findings[0].Code != "utilisation" {
		t.Errorf("%q is blamed: %+v", d.Culprit, d.Health.Findings)
	}
}

func TestNewClientsOfAPgBouncerAreTroubleOnlyWhenTheyWaitForLong(t *testing.T) { // alone, for it counts free slots
	m, direct := withDatabase(t)
	b := newBouncerFor(m, direct, direct.User+"\nadmin_users = "+direct.User)
	m.configure(b.cfg, `pooler = "pgbouncer"`, fmt.Sprintf("direct_host = %q", direct.Host), fmt.Sprintf("direct_port = %d", direct.Port))
	doctor := func() activity.Diagnosis {
		return printed[activity.Diagnosis](t, m.run("", "db-connections", "doctor", "--json").out)
	}
	starved := func(d activity.Diagnosis) bool {
		return slices.ContainsFunc(d.Health.Findings, func(f activity.Finding) bool { return f.Code == "pooler" })
	}
	stop := storm(m, b, "SELECT 1;", "--rate=30")
	for range 3 {
		if d := doctor(); starved(d) {
			t.Errorf("a pool in use: %+v", d.Health.Findings)
		}
	}
	stop()
	defer storm(m, b, "SELECT pg_sleep(0.5);")()
	var d activity.Diagnosis
	dbtest.Eventually(t, "the doctor finds the small pool", func() bool {
		d = doctor()
		return strings.HasPrefix(d.Culprit, "PgBouncer's pool") && d.Health.Level == activity.Critical
	})
	for _, s := range d.Steps[:2] {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", s.Command)
		cmd.Env = append(os.Environ(), "PGPASSWORD="+b.cfg.Password.Reveal())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", s.Command, err, out)
		}
	}
	dbtest.Eventually(t, "they wait no longer", func() bool { return !starved(doctor()) })
}

// storm is a pgbench that connects for each transaction, until it is stopped.
func storm(m *machine, b *bouncer, script string, more ...string) (stop func()) {
	m.Helper()
	file := filepath.Join(m.home, "storm.sql")
	m.own(file, script)
	args := append([]string{"-n", "-C", "-c", "12", "-j", "2", "-T", "600", "-f", file}, more...)
	return clientOfBouncerWith(m, b, "pgbench", args...)
}

// clientOfBouncer is a psql in a transaction, or one that waits for its turn.
func clientOfBouncer(m *machine, b *bouncer) {
	m.Helper()
	clientOfBouncerWith(m, b, "psql", "-X", "-c", "SELECT pg_sleep(600)")
}

func clientOfBouncerWith(m *machine, b *bouncer, name string, args ...string) (stop func()) {
	m.Helper()
	cmd := exec.Command(name, args...) //nolint:noctx // it is stopped below
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "PGHOST=" + b.cfg.Host, fmt.Sprintf("PGPORT=%d", b.cfg.Port), "PGUSER=" + b.cfg.User,
		"PGPASSWORD=" + b.cfg.Password.Reveal(), "PGDATABASE=" + b.cfg.Name, "PGSSLMODE=disable",
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	m.Cleanup(stop)
	return stop
}

func TestACancelWithoutEffectIsNotCalledASuccess(t *testing.T) {
	o := newOperator(t)
	tcp := o.cfg.Host
	o.cfg.Host = socketDir // TCP takes a little more after each cancel
	conn := o.session("export")
	o.cfg.Host = tcp
	frontend := conn.PgConn().Frontend()
	frontend.SendQuery(&pgproto3.Query{String: "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"})
	o.must(frontend.Flush())
	t.Cleanup(func() { _ = conn.PgConn().Conn().Close() })
	pid := fmt.Sprint(conn.PgConn().PID())
	dbtest.Eventually(t, "the server waits for its client", func() bool {
		wait := ""
		o.must(o.control.QueryRow(t.Context(), "SELECT coalesce(wait_event, '') || (now() - query_start > '1s') FROM pg_stat_activity WHERE pid = $1", conn.PgConn().PID()).Scan(&wait))
		return wait == "ClientWritetrue"
	})
	code, out, _ := o.runs("cancel", "--pid="+pid, "--yes")
	if code != exitFailed || !strings.Contains(out, "still running") {
		t.Errorf("%d, %s", code, out)
	}
	_, advice, _ := strings.Cut(out, "ddtb db-connections ")
	args := strings.Fields(strings.SplitN(advice, "\n", 2)[0])
	if code, out, err := o.runs(append(args, "--yes")...); code != 0 || !strings.Contains(out, "1 of 1 ended.") {
		t.Errorf("%v: %d, %s%s", args, code, out, err)
	}
	o.has("export", 0)
}

func TestARefusalNamesTheServerAndTheRoleOfTheRun(t *testing.T) {
	o := newOperator(t)
	o.fills()
	_, out, _ := o.runsUntil(context.WithoutCancel(t.Context()), "doctor")
	for _, want := range []string{fmt.Sprintf("-p %d", o.cfg.Port), "on the database's machine, " + o.cfg.Host, o.cfg.User + " is none"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
