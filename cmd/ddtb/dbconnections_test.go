package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

// operator is someone who runs db-connections on a small server: 10 slots, 7 of them usable.
type operator struct {
	*testing.T
	server  *dbtest.Server
	cfg     config.Database
	control *pgx.Conn
	runtime string // XDG_RUNTIME_DIR
}

// socketDir is the directory of the server's Unix socket.
const socketDir = "/tmp"

func newOperator(t *testing.T) *operator {
	t.Helper()
	dbtest.NoLeaks(t)
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: 10, Settings: map[string]string{"unix_socket_directories": socketDir}})
	cfg := server.Config(t)
	runtime, err := os.MkdirTemp("", "run") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runtime) })
	return &operator{T: t, server: server, cfg: cfg, control: dbtest.Control(t, cfg), runtime: runtime}
}

// runs runs `ddtb db-connections args…` against the server.
func (o *operator) runs(args ...string) (code int, out, err string) {
	o.Helper()
	return o.runsUntil(o.Context(), args...)
}

func (o *operator) runsUntil(ctx context.Context, args ...string) (code int, out, err string) {
	o.Helper()
	var stdout, stderr bytes.Buffer
	c := &cli{in: strings.NewReader("y\n"), out: &stdout, err: &stderr, environ: o.environ()}
	code = c.runWith(ctx, args)
	for _, text := range []string{stdout.String(), stderr.String()} {
		if strings.Contains(text, o.cfg.Password.Reveal()) {
			o.Errorf("%v printed the password:\n%s", args, text)
		}
	}
	return code, stdout.String(), stderr.String()
}

func (o *operator) environ() []string {
	return []string{
		"XDG_RUNTIME_DIR=" + o.runtime, "DDTB_CONFIG=" + o.configFile(),
	}
}

func (o *operator) configFile() string {
	o.Helper()
	path := o.runtime + "/ddtb.toml"
	text := fmt.Sprintf("[databases.default]\nname = %q\nuser = %q\npassword = %q\nhost = %q\nport = %d\nsslmode = \"disable\"\n",
		o.cfg.Name, o.cfg.User, o.cfg.Password.Reveal(), o.cfg.Host, o.cfg.Port)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		o.Fatal(err)
	}
	return path
}

// runWith is run, with the command in place also where main does not offer it.
func (c *cli) runWith(ctx context.Context, args []string) int {
	root := c.root()
	if found, _, err := root.Find([]string{"db-connections"}); err != nil || found == root {
		root.AddCommand(c.dbConnectionsCommand())
	}
	root.SetArgs(append([]string{"db-connections"}, args...))
	err := root.ExecuteContext(ctx)
	if ee, ok := errors.AsType[*exitError](err); ok {
		_, _ = fmt.Fprint(c.err, ee.err)
		return ee.code
	}
	if err != nil {
		_, _ = fmt.Fprint(c.err, err)
		return exitFailed
	}
	return exitFine
}

// session opens one that is idle, of this application.
func (o *operator) session(application string) *pgx.Conn {
	o.Helper()
	cc, err := db.ConnConfig(o.cfg, application)
	o.must(err)
	conn, err := pgx.ConnectConfig(o.Context(), cc)
	o.must(err)
	o.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	o.must(conn.Ping(o.Context()))
	return conn
}

// fills takes every slot that an ordinary role can have, when those of earlier runs are free again.
func (o *operator) fills() {
	o.Helper()
	count := func(condition string) (n int) {
		o.must(o.control.QueryRow(o.Context(), "SELECT count(*) FROM pg_stat_activity WHERE "+condition).Scan(&n))
		return n
	}
	for end := time.Now().Add(20 * time.Second); count("application_name = 'ddtb/db-connections'") > 0; {
		if time.Now().After(end) {
			o.Fatal("an earlier run is still connected")
		}
	}
	for count("backend_type = 'client backend'") < 7 {
		o.session("crowd")
	}
}

func (o *operator) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

func (o *operator) has(application string, n int) {
	o.Helper()
	if got := dbtest.Backends(o, o.control, application); got != n {
		o.Errorf("%d sessions of %s, want %d", got, application, n)
	}
}

// printed reads JSON.
func printed[T any](t *testing.T, text string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return v
}

func TestStatusAndHealthWorkAsSubcommandsAndAsActions(t *testing.T) {
	o := newOperator(t)
	o.session("shop/pool")
	for _, args := range [][]string{{}, {"status"}, {"--action=status"}, {"--action", "status"}} {
		if code, out, err := o.runs(args...); code != 0 || !strings.Contains(out, "shop/pool") || err != "" {
			t.Errorf("%v: %d, %s%s", args, code, out, err)
		}
	}
	_, out, _ := o.runs("status", "--json")
	if s := printed[activity.Status](t, out); s.Slots.Max != 10 || len(s.Sessions) < 2 {
		t.Errorf("%+v", s)
	}
	for _, args := range [][]string{{"health"}, {"--action=health", "--json"}} {
		if code, out, _ := o.runs(args...); code != 0 || !strings.Contains(strings.ToLower(out), "ok") {
			t.Errorf("%v: %d, %s", args, code, out)
		}
	}
	for _, args := range [][]string{{"--action=nonsense"}, {"--action=status", "--older-than=5m"}, {"monitor", "--interval=0"}, {"cancel"}} {
		if code, _, err := o.runs(args...); code != exitUsage || err == "" {
			t.Errorf("%v: %d, %s", args, code, err)
		}
	}
}

func TestTheExitCodeOfHealthIsTheVerdict(t *testing.T) {
	o := newOperator(t)
	for range 4 { // of 7, with the one that looks and the control connection 6: 86 %
		o.session("shop/pool")
	}
	if code, out, _ := o.runs("health"); code != 2 || !strings.HasPrefix(out, "CRITICAL  6 of 7") {
		t.Errorf("%d, %s", code, out)
	}
	o.fills()
	if code, out, _ := o.runs("health"); code != 2 || !strings.Contains(out, "Ways in:") {
		t.Errorf("full, and without access: %d, %s", code, out)
	}
	o.cfg.Port = 1
	if code, out, _ := o.runs("health"); code != 3 || !strings.HasPrefix(out, "UNKNOWN") {
		t.Errorf("no server: %d, %s", code, out)
	}
	code, out, _ := o.runs("health", "--json")
	if f := printed[activity.Failure](t, out); code != 3 || f.Health.Level != activity.Unknown || f.Error == "" {
		t.Errorf("no server, in JSON: %d, %s", code, out)
	}
}

func TestWhatToDoAboutAServerThatRefusesFitsItsRefusal(t *testing.T) {
	o := newOperator(t)
	for more, want := range map[string]string{
		"sslmode=require":                       "set an sslmode that it offers",
		"sslmode=disable options='-c no.no'":    "the setting that the message names",
		"sslmode=disable dbname=missing":        "correct the user, the password or the database's name",
		"sslmode=disable host=127.0.0.1 port=1": "see that the server runs",
	} {
		dsn := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s %s", o.cfg.Host, o.cfg.Port, o.cfg.User, o.cfg.Password.Reveal(), o.cfg.Name, more)
		code, out, _ := o.runs("--dsn", dsn, "health", "--json")
		if f := printed[activity.Failure](t, out); code != 3 || !strings.Contains(f.Health.Findings[0].Do, want) {
			t.Errorf("%s: %d, %s", more, code, out)
		}
	}
}

func TestCloseIdleShowsAsksAndReports(t *testing.T) {
	o := newOperator(t)
	o.session("shop/pool")
	o.session("shop/jobs")
	o.session("report")
	if code, out, _ := o.runs("close-idle"); code != 0 || !strings.Contains(out, "No session fits") {
		t.Errorf("nothing is idle for five minutes: %d, %s", code, out)
	}
	args := []string{"close-idle", "--older-than=0", "--application=shop"}
	if code, out, err := o.runs(args...); code != exitUsage || !strings.Contains(out, "would be ended") || !strings.Contains(err, "--yes") {
		t.Errorf("without a terminal to ask on: %d, %s%s", code, out, err)
	}
	if code, out, _ := o.runs(append(args, "--dry-run", "--yes")...); code != 0 || !strings.Contains(out, "would be ended") {
		t.Errorf("dry run: %d, %s", code, out)
	}
	o.has("shop/pool", 1)
	code, out, _ := o.runs(append(args, "--yes", "--json")...)
	if c := printed[activity.Closing](t, out); code != 0 || c.Count(activity.Closed) != 2 || c.After == nil || c.After.Used != c.Before.Used-2 {
		t.Errorf("%d, %s", code, out)
	}
	o.has("shop/pool", 0)
	o.has("shop/jobs", 0)
	o.has("report", 1)
	if code, out, _ := o.runs("--action=close-idle", "--older-than=0s", "--application=report", "--yes"); code != 0 || !strings.Contains(out, "1 of 1 ended.") {
		t.Errorf("%d, %s", code, out)
	}
	o.has("report", 0)
	o.session("")
	o.session("report")
	if code, out, _ := o.runs("close-idle", "--older-than=0s", "--application=", "--yes"); code != 0 || !strings.Contains(out, "1 of 1 ended.") {
		t.Errorf("without a name: %d, %s", code, out)
	}
	o.has("report", 1)
}

func TestAnEmptyFlagIsRefused(t *testing.T) {
	o := newOperator(t)
	o.session("report")
	for _, flag := range []string{"--user=", "--database=", "--pid=0", "--dsn=", "--pgbouncer="} {
		code, out, err := o.runs("close-idle", "--older-than=0s", "--yes", flag)
		if code != exitUsage || !strings.Contains(err, "names nothing") {
			t.Errorf("%s: %d, %s%s", flag, code, out, err)
		}
	}
	o.has("report", 1)
}

func TestForceCloseEndsTheConfiguredApplicationUnlessAnotherIsNamed(t *testing.T) {
	o := newOperator(t)
	o.session("ddtb/pool")
	tx := o.session("ddtb/pool")
	_, err := tx.Exec(t.Context(), "BEGIN")
	o.must(err)
	o.session("report")
	if code, out, err := o.runs("force-close"); code != exitUsage || !strings.Contains(out, "all of ddtb, which is this application") {
		t.Errorf("before the question: %d, %s%s", code, out, err)
	}
	if code, out, _ := o.runs("force-close", "--yes"); code != 0 || !strings.Contains(out, "2 of 2 ended.") {
		t.Errorf("%d, %s", code, out)
	}
	o.has("ddtb/pool", 0)
	o.has("report", 1)
}

func TestCancelEndsOneQuery(t *testing.T) {
	o := newOperator(t)
	conn := o.session("report")
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
		ended <- err
	}()
	pid := fmt.Sprintf("--pid=%d", conn.PgConn().PID())
	for end := time.Now().Add(20 * time.Second); ; { // it has begun when it can be cancelled
		if code, _, _ := o.runs("cancel", pid, "--yes"); code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it can't be cancelled")
		}
	}
	if err := <-ended; err == nil {
		t.Error("the query went on")
	}
	o.has("report", 1)
	if code, _, err := o.runs("cancel", pid, "--yes"); code != exitFailed || !strings.Contains(err, "runs no query") {
		t.Errorf("%d, %s", code, err)
	}
}

// observes returns a connected Observer, as a running server has one.
func (o *operator) observes() *activity.Observer {
	o.Helper()
	observer, err := activity.NewObserver(o.cfg)
	o.must(err)
	o.Cleanup(observer.Close)
	_, err = observer.Slots(o.Context())
	o.must(err)
	return observer
}

func TestAFullServerIsExplainedAndTheRunningServersConnectionIsBorrowed(t *testing.T) {
	o := newOperator(t)
	observer := o.observes()
	for range 3 {
		o.session("web")
	}
	o.fills()
	code, out, _ := o.runs("doctor")
	if code != exitFailed || !strings.Contains(out, "every ordinary slot is taken") || !strings.Contains(out, "FATAL: remaining connection slots are reserved") {
		t.Errorf("without access: %d, %s", code, out)
	}
	code, out, _ = o.runs("doctor", "--json")
	if f := printed[activity.Failure](t, out); code != exitFailed || f.Refusal == nil || len(f.Refusal.Ways) == 0 {
		t.Errorf("without access, in JSON: %d, %s", code, out)
	}

	dir, err := activity.SocketDir(o.runtime)
	o.must(err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- observer.Share(ctx, dir) }()
	for end := time.Now().Add(20 * time.Second); ; { // the socket is there soon
		if code, out, _ = o.runs("status"); code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not lent")
		}
	}
	if !strings.Contains(out, "the monitoring connection of the running ddtb server") {
		t.Errorf("the access is not told:\n%s", out)
	}
	_, out, _ = o.runs("doctor", "--json")
	d := printed[activity.Diagnosis](t, out)
	if d.Culprit == "" || len(d.Steps) < 3 {
		t.Errorf("%+v", d)
	}
	if code, out, _ := o.runs("close-idle", "--older-than=0", "--application=web", "--yes"); code != 0 || !strings.Contains(out, "3 of 3 ended.") {
		t.Errorf("through the socket: %d, %s", code, out)
	}
	o.has("web", 0)
	o.has("crowd", 7-3-2) // the observer and the control connection have the others
	stop()
	o.must(<-ended)
}

func TestTheDoctorsCommandsCanBeRunAsTheyAre(t *testing.T) {
	o := newOperator(t)
	for range 4 {
		o.session("it's a shop")
	}
	var d activity.Diagnosis
	dbtest.Eventually(t, "they have rested for long enough to be closed", func() bool {
		_, out, _ := o.runs("doctor", "--json")
		d = printed[activity.Diagnosis](t, out)
		return len(d.Steps) > 0 && strings.Contains(d.Steps[0].Command, `'it'\''s a shop'`)
	})
	for _, s := range d.Steps {
		rest, ours := strings.CutPrefix(s.Command, "ddtb db-connections ")
		if !ours {
			continue
		}
		args := strings.Fields(strings.ReplaceAll(rest, `'it'\''s a shop'`, "its")) // a shell would split it so
		if code, _, err := o.runs(append(args, "--help")...); code != 0 {
			t.Errorf("%s: %d, %s", s.Command, code, err)
		}
	}
}

func TestAnyServerCanBeNamedOnTheCommandLine(t *testing.T) {
	o := newOperator(t)
	dsn := fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", o.cfg.User, o.cfg.Password.Reveal(), o.cfg.Host, o.cfg.Port, o.cfg.Name)
	keywords := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable",
		o.cfg.Host, o.cfg.Port, o.cfg.User, o.cfg.Password.Reveal(), o.cfg.Name)
	name := o.cfg.Name
	o.cfg.Port, o.cfg.Name = 1, "wrong" // in the file
	for _, d := range []string{dsn, keywords} {
		if code, out, err := o.runs("--dsn", d, "status"); code != 0 || !strings.Contains(out, "database "+name) {
			t.Errorf("%d, %s%s", code, out, err)
		}
	}
	for _, broken := range []string{
		strings.Replace(dsn, "@", "%@", 1),
		strings.Replace(dsn, "@", "@rest#of it@", 1),
		"jdbc:postgresql://127.0.0.1/app?user=app",
	} {
		code, out, err := o.runs("--dsn", broken, "status")
		if code != exitUsage || !strings.Contains(err, "percent-encoded") || strings.Contains(err, "rest") {
			t.Errorf("%d, %s%s", code, out, err)
		}
	}
}

func TestAServerOfTheCommandLineIsReadAsAConfiguredOne(t *testing.T) {
	o := newOperator(t)
	exec := func(sql string) {
		t.Helper()
		_, err := o.control.Exec(t.Context(), sql)
		o.must(err)
	}
	dsn := func(more string) string {
		return fmt.Sprintf("host=%s port=%d user=%s dbname=%s password=%s sslmode=disable %s", o.cfg.Host, o.cfg.Port, o.cfg.User, o.cfg.Name, o.cfg.Password.Reveal(), more)
	}
	t.Run("a password that SASLprep changes", func(t *testing.T) {
		exec("CREATE ROLE prepared LOGIN PASSWORD 'Gr²oss'")
		if code, _, err := o.runs("--dsn", dsn("user=prepared password=Gr²oss"), "status"); code != exitFine {
			t.Errorf("%d, %s", code, err)
		}
	})
	t.Run("a database in LATIN1", func(t *testing.T) {
		var provider string
		o.must(o.control.QueryRow(t.Context(),
			"SELECT CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'LOCALE_PROVIDER libc' ELSE '' END").Scan(&provider))
		exec("CREATE DATABASE old ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 " + provider)
		o.cfg.Name = "old"
		_, err := o.session("report").Exec(t.Context(), "SELECT 'Grüße'")
		o.must(err)
		if _, out, _ := o.runs("--dsn", dsn(""), "status", "--json"); !strings.Contains(out, "Grüße") {
			t.Error(out)
		}
	})
	t.Run("a port of something else", func(t *testing.T) {
		l := greeter(t, "HTTP/1.1 400 Bad Request\r\n\r\n")
		if _, _, err := o.runs("--dsn", dsn("host=127.0.0.1 port="+l), "status"); !strings.Contains(err, "not PostgreSQL") {
			t.Error(err)
		}
	})
}

func TestTheMonitorWritesLinesWhereThereIsNoTerminalAndOutlivesARestart(t *testing.T) {
	o := newOperator(t)
	if code, out, _ := o.runs("monitor"); code != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "/7") {
		t.Errorf("once: %d, %q", code, out)
	}
	r, w, err := os.Pipe()
	o.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		c := &cli{in: strings.NewReader(""), out: w, err: w, environ: o.environ()}
		ended <- c.runWith(ctx, []string{"monitor", "--watch", "--interval=0.1", "--json"})
		_ = w.Close()
	}()
	lines := json.NewDecoder(r)
	next := func() (s activity.Sample) {
		o.must(lines.Decode(&s))
		return s
	}
	if s := next(); s.Slots == nil || s.Slots.Max != 10 {
		t.Errorf("%+v", s)
	}
	next()
	o.server.Stop(t, dbtest.Immediate)
	for next().Slots != nil { // until it sees that the server is down
	}
	o.server.Start(t)
	for next().Slots == nil { // until it is up again
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	_ = r.Close()
}

func TestAMonitorOutlivesTheServerWhoseConnectionItUses(t *testing.T) {
	o := newOperator(t)
	observer := o.observes()
	held := o.session("web")
	o.fills()
	t.Setenv("TMPDIR", o.runtime)
	dir, err := activity.SocketDir("") // of a server without XDG_RUNTIME_DIR, which this command has
	o.must(err)
	sharing, stop := context.WithCancel(t.Context())
	shared := make(chan error, 1)
	go func() { shared <- observer.Share(sharing, dir) }()
	dbtest.Eventually(t, "the connection is shared", func() bool {
		code, _, _ := o.runs("status")
		return code == exitFine
	})

	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		c := &cli{in: strings.NewReader(""), out: w, err: io.Discard, environ: o.environ()}
		ended <- c.runWith(ctx, []string{"monitor", "--watch", "--interval=0.1", "--json"})
		_ = w.Close()
	}()
	lines := json.NewDecoder(r)
	next := func() (s activity.Sample) {
		o.must(lines.Decode(&s))
		return s
	}
	if s := next(); s.Slots == nil || s.Slots.Free() != 0 {
		t.Errorf("%+v", s)
	}
	stop()
	o.must(<-shared)
	o.must(held.Close(t.Context())) // a slot is free
	dbtest.Eventually(t, "it has a connection of its own", func() bool { return next().Slots != nil })
	go func() { _, _ = io.Copy(io.Discard, r) }()
	cancel()
	if code := <-ended; code != exitFine {
		t.Errorf("exit code %d", code)
	}
	_ = r.Close()
}

func TestTheBudgetsExitCodeReportsWhetherItFits(t *testing.T) {
	o := newOperator(t)
	code, out, _ := o.runs("budget")
	if code != exitFailed || !strings.Contains(out, "Does not fit  1 × (10 + 1) × 2 while deploying + 1 extras = 23, of 7 usable slots") {
		t.Errorf("%d, %s", code, out)
	}
	code, out, _ = o.runs("budget", "--json", "--extras=0", "--replicas=1")
	if b := printed[activity.Budget](t, out); code != exitFailed || b.FitsPool != 2 {
		t.Errorf("%d, %+v", code, b)
	}
}

func TestTheBudgetOfAForeignServerIsThatOfThePoolsThatAreThere(t *testing.T) {
	o := newOperator(t)
	for range 2 {
		o.session("web-1")
		o.session("web-2")
	}
	dsn := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", o.cfg.Host, o.cfg.Port, o.cfg.User, o.cfg.Password.Reveal(), o.cfg.Name)
	code, out, _ := o.runs("--dsn", dsn, "budget")
	if code != exitFailed || !strings.Contains(out, "web 4 + ") || !strings.Contains(out, "web again while it is deployed 4") || strings.Contains(out, "max_size to") {
		t.Errorf("%d, %s", code, out)
	}
	_, out, _ = o.runs("--dsn", dsn, "budget", "--json")
	if b := printed[activity.Budget](t, out); b.Strategy != activity.Observed || len(b.Services) == 0 || b.Services[0].Sessions != 4 {
		t.Errorf("%+v", b)
	}
	if _, out, _ = o.runs("budget"); !strings.Contains(out, "Services on the server now") {
		t.Error(out)
	}
}
