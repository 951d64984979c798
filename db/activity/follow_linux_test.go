package activity

import (
	"bytes"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db/localpg"
)

// The printed commands are run as they stand, by a shell on a terminal, with the ddtb of this source in its PATH.

// builtOnce is the directory with the built command.
var builtOnce = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(testDir, "bin")
	out, err := osexec.Command("go", "build", "-o", filepath.Join(dir, "ddtb"), "ddtb/cmd/ddtb").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

// shell is an operator's: it has the passwords, and reaches the stage's server.
func (s *stage) shell(role, command string) *osexec.Cmd {
	s.Helper()
	bin, err := builtOnce()
	must(s.T, err)
	home := s.TempDir()
	cfg := s.config(role, "wall")
	super := s.Config("postgres")
	password := testPassword
	if role == localpg.Superuser {
		password = super.Password.Reveal()
	}
	file := filepath.Join(home, "ddtb.toml")
	must(s.T, os.WriteFile(file, fmt.Appendf(nil, "[databases.default]\nname = %q\nuser = %q\npassword = %q\nhost = %q\nport = %d\nsslmode = \"disable\"\n"+
		"application_name = \"shop\"\n", cfg.Name, cfg.User, password, cfg.Host, cfg.Port), 0o600))
	passwords := filepath.Join(home, "pgpass")
	must(s.T, os.WriteFile(passwords, fmt.Appendf(nil, "*:*:*:%s:%s\n*:*:*:*:%s\n", localpg.Superuser, super.Password.Reveal(), testPassword), 0o600))
	cmd := osexec.CommandContext(s.Context(), "script", "-qec", command, "/dev/null") // a terminal, since ddtb asks before it ends sessions
	cmd.Env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + home, "XDG_RUNTIME_DIR=" + home, "TERM=xterm",
		"PGPASSFILE=" + passwords, "PAGER=cat", "DDTB_CONFIG=" + file,
	}
	cmd.WaitDelay = time.Second
	return cmd
}

// type types the command and the answers, and returns what came out.
func (s *stage) types(role, command, answers string) string {
	s.Helper()
	cmd := s.shell(role, command)
	stdin, keys, err := os.Pipe() // at its end, script would wait for two seconds
	must(s.T, err)
	defer func() { _, _ = stdin.Close(), keys.Close() }()
	_, err = keys.WriteString(answers)
	must(s.T, err)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &out
	if err := cmd.Run(); err != nil {
		s.Errorf("%s: %v\n%s", command, err, out.String())
	}
	return out.String()
}

// follow runs the commands of all steps, in order.
func (s *stage) follow(role string, steps []Step) {
	s.Helper()
	for _, step := range steps {
		if step.Hurts == "" {
			s.Errorf("this step does not say whom it hurts: %+v", step)
		}
		switch {
		case step.Command == "":
		case strings.HasSuffix(step.Command, "monitor --watch"): // it runs until q
			s.types(role, step.Command, "q")
		case strings.HasSuffix(step.Command, " budget"): // its exit code is its verdict
			s.types(role, step.Command+" || test $? = 1", "")
		default:
			s.types(role, step.Command, "y\n")
		}
	}
}

// control is a superuser's session on a slot that is reserved for it.
func (s *stage) control(database string) *pgx.Conn {
	s.Helper()
	conn, err := s.Connect(s.Context(), database)
	must(s.T, err)
	s.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// restore takes back what steps changed for good.
func (s *stage) restore() {
	s.Helper()
	ctx := context.Background()
	conn, err := s.Connect(ctx, "postgres")
	must(s.T, err)
	defer func() { _ = conn.Close(ctx) }()
	standby := false
	must(s.T, conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby))
	for _, sql := range []string{
		"ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()", "ALTER ROLE other NOREPLICATION", "ALTER ROLE app RESET ALL", "ALTER ROLE other RESET ALL", "ALTER ROLE reader RESET ALL",
		"ALTER ROLE app CONNECTION LIMIT -1", "ALTER ROLE other CONNECTION LIMIT -1", "ALTER DATABASE wall CONNECTION LIMIT -1",
		"ALTER DATABASE elsewhere CONNECTION LIMIT -1", "ALTER DATABASE wall RESET ALL", "DROP ROLE IF EXISTS its_own",
		"REVOKE pg_read_all_stats, pg_signal_backend FROM app", "REVOKE pg_signal_backend FROM reader",
	} {
		switch {
		case standby && strings.Contains(sql, "SYSTEM"): // its connection to the primary is stored so, too
			sql = "ALTER SYSTEM RESET max_standby_streaming_delay"
		case standby && !strings.Contains(sql, "reload"): // it is stored on the primary
			continue
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			s.Errorf("%s: %v", sql, err)
		}
	}
}

// clear ends what the killed clients left running on the server.
func (s *stage) clear() {
	s.Helper()
	ctx := context.Background()
	conn, err := s.Connect(ctx, "postgres")
	must(s.T, err)
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
	must(s.T, err)
}

// after looks again, as a superuser who sees all.
func (s *stage) after() Snapshot {
	s.Helper()
	o := s.observer(s.T, localpg.Superuser)
	defer o.Close()
	return snapshot(s.T, o)
}

// settled is after, without the test's own sessions that were closed: their backends take a moment to leave. One
// Observer is still connected.
func (s *stage) settled() (now Snapshot) {
	s.Helper()
	eventually(s.T, "the closed sessions have left", func() bool {
		now = s.after()
		n := len(now.clients(func(x Session) bool { return now.IsMonitor(x) && !x.Self }))
		return n == 1
	})
	return now
}

// spares checks that only the permitted sessions ended, and those that have not logged in.
func (s *stage) spares(before, after Snapshot, mayLose func(Session) bool) {
	s.Helper()
	for _, x := range before.clients(func(x Session) bool { return !x.Self && x.User != "" && !mayLose(x) }) {
		there := slices.ContainsFunc(after.Sessions, func(y Session) bool { return y.PID == x.PID && y.Started.Equal(x.Started) })
		if !there {
			s.Errorf("%s lost its session: %s", x.name(), x.Query)
		}
	}
}

// trouble is how bad it is: who waits, and who has a slot.
func trouble(s Snapshot) int {
	return s.Slots.Used + 2*len(s.waiting()) + len(s.Prepared) + len(s.logins(nil))
}

// program runs a real client until the test ends. input is typed, and its terminal stays open.
func (s *stage) program(input, name string, args ...string) {
	s.Helper()
	cmd := osexec.CommandContext(context.WithoutCancel(s.Context()), name, args...)
	cfg := s.config(app, "wall")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "PGHOST=" + cfg.Host, fmt.Sprintf("PGPORT=%d", cfg.Port), "PGUSER=" + app, "PGDATABASE=wall",
		"PGPASSWORD=" + testPassword, "PGSSLMODE=disable", "PGCONNECT_TIMEOUT=10",
	}
	stdin, keys, err := os.Pipe()
	must(s.T, err)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &out
	cmd.WaitDelay = time.Second
	must(s.T, cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_, _ = stdin.Close(), keys.Close()
		if s.Failed() {
			s.Logf("%s: %s", name, out.String())
		}
	})
	_, err = keys.WriteString(input)
	must(s.T, err)
}

// python runs a program with psycopg2, of Debian's python3-psycopg2.
func (s *stage) python(program string) {
	s.Helper()
	s.program("", "/usr/bin/python3", "-c", "import psycopg2, psycopg2.pool, psycopg2.extensions, threading, time\n"+program)
}

// psql runs a statement in a real psql, under an application's name. It stays connected.
func (s *stage) psql(application, sql string) {
	s.Helper()
	s.program(sql+";\n", "psql", "-X", "-q", "-d", "application_name='"+application+"'")
}

func TestTheShellOfTheTestsReachesTheServer(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		if out := (&stage{t, s}).types(app, "ddtb db-connections status", ""); !strings.Contains(out, "database wall, seen as app") {
			t.Error(out)
		}
	})
}
