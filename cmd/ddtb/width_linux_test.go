package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// commandLines are the ways to run each command for TestNothingIsWiderThanASmallTerminal. A command without a line fails
// the test. "until" is a word after which Ctrl-C is typed.
var commandLines = map[string][]struct{ args, typed, until string }{
	"ddtb":                 {{}, {args: "--nonsense"}},
	"ddtb run":             {{args: "--addr 127.0.0.1:0 --data $DATA", until: "# none"}, {args: "--nonsense"}},
	"ddtb runserver":       {{args: "127.0.0.1:0", until: "serves on"}, {args: "127.0.0.1:x"}},
	"ddtb strategy":        {{args: "--addr 1"}, {args: "nonsense --addr 1"}, {args: "persistent --addr 1"}, {args: "pool --addr $ADDR"}},
	"ddtb migrate":         {{}, {args: "--config /nowhere"}},
	"ddtb migrate up":      {{}},
	"ddtb migrate down":    {{typed: "n\n"}},
	"ddtb migrate status":  {{}},
	"ddtb loaddemo":        {{}, {}},
	"ddtb createsuperuser": {{}, {args: "--noinput"}, {args: "--username bad/name"}, {typed: "bad name\nada\n\nada\nada\nn\n" + goodPassword + "\n" + goodPassword + "\n"}},
	"ddtb changepassword":  {{args: strings.Repeat("u", 150)}, {}},
	"ddtb db-connections": {
		{},
		{args: "--action=nonsense"},
		{args: "--dsn postgres://%"},
		{args: "--dsn postgres://u@127.0.0.1:1/x"},
		{args: "--action=status --older-than 5"},
	},
	"ddtb db-connections status":      {{}},
	"ddtb db-connections health":      {{}},
	"ddtb db-connections doctor":      {{}, {args: "--pgbouncer host=127.0.0.1"}},
	"ddtb db-connections close-idle":  {{args: "--older-than 0 --dry-run"}, {args: "--older-than 0 --in-transaction", typed: "n\n"}, {}, {args: "--older-than=x"}},
	"ddtb db-connections force-close": {{args: "--dry-run"}, {args: "--application=$LONG", typed: "n\n"}, {args: "--application=$LONG --yes"}},
	"ddtb db-connections cancel":      {{}, {args: "--pid 1"}, {args: "--pid $ACTIVE", typed: "n\n"}, {args: "--pid $ACTIVE --yes"}},
	"ddtb db-connections monitor":     {{}, {args: "--interval 0"}},
	"ddtb db-connections budget":      {{}, {args: "--replicas 1000"}, {args: "--replicas -1"}},
	"ddtb sendtestemail":              {{}},
	"ddtb config":                     {{}},
	"ddtb config check":               {{}, {args: "--connect"}},
	"ddtb config show":                {{}},
	"ddtb config init":                {{}, {args: "--config $DATA.toml"}},
	"ddtb healthcheck":                {{args: "1"}, {args: "$ADDR"}, {args: "$ADDR --path nope"}},
	"ddtb lab":                        {{}},
	"ddtb lab list":                   {{}},
	"ddtb lab run":                    {{}, {args: "1 --all"}, {args: "half"}, {args: "mail-storm --only fix"}},
	"ddtb version":                    {{}, {args: "-v"}},
}

func TestNothingIsWiderThanASmallTerminal(t *testing.T) {
	t.Parallel()
	o := newStranger(t)
	for _, c := range commandsOf(t) {
		if _, known := commandLines[c]; !known {
			t.Errorf("%s is not in commandLines", c)
		}
	}
	for _, command := range slices.Sorted(maps.Keys(commandLines)) {
		o.mustFit(t, command+" --help", "", "")
		for _, line := range commandLines[command] {
			o.mustFit(t, strings.TrimSpace(command+" "+line.args), line.typed, line.until)
		}
	}
}

// commandsOf lists the commands but those that cobra adds.
func commandsOf(t *testing.T) (paths []string) {
	t.Helper()
	commands := []*cobra.Command{(&cli{}).root()}
	for i := 0; i < len(commands); i++ {
		paths = append(paths, commands[i].CommandPath())
		commands = append(commands, commands[i].Commands()...)
	}
	return paths
}

// stranger is a person at a terminal of 80 columns, whose server has sessions with names as wide as they can be.
type stranger struct {
	*machine
	values *strings.Replacer
}

const terminalWidth = 80

// endOfInput is Ctrl-D, more than once: a kernel may take the first as the end of the line before it.
const endOfInput = "\x04\x04\x04"

func newStranger(t *testing.T) *stranger {
	t.Helper()
	m := newMachine(t)
	cfg := wideDatabase(t)
	m.configure(cfg, "application_name = \""+cfg.ApplicationName+"\"")
	m.run("", "migrate").must(exitFine)
	long := strings.Repeat("a", 63)
	crowd := []struct{ application, sql string }{
		{long, "SELECT 1"}, {strings.Repeat("名", 21), "BEGIN"}, {"\x1b[2J\u202e" + strings.Repeat("x", 50), "SELECT 2"},
	}
	for _, c := range crowd {
		_, err := wideSession(t, cfg, c.application).Exec(t.Context(), c.sql)
		must(t, err)
	}
	active := wideSession(t, cfg, "active "+long[:50])
	go func() {
		_, _ = active.Exec(context.WithoutCancel(t.Context()), "SELECT pg_sleep(600), '"+strings.Repeat("名", 200)+"'")
	}()
	server := m.serving("runserver", "127.0.0.1:0")
	return &stranger{m, strings.NewReplacer("$ADDR", strings.TrimPrefix(server.url, "http://"), "$LONG", long, "$DATA", m.home+"/pg",
		"$ACTIVE", fmt.Sprint(active.PgConn().PID()))}
}

// wideDatabase makes a role and a database whose names have 63 bytes.
func wideDatabase(t *testing.T) config.Database {
	t.Helper()
	cfg := dbtest.NewServer(t, dbtest.Options{MaxConnections: 30}).Config(t)
	control := dbtest.Control(t, cfg)
	role, name := "R "+strings.Repeat("名", 20), "D-"+strings.Repeat("d", 61)
	for _, sql := range []string{
		"CREATE ROLE " + pgx.Identifier{role}.Sanitize() + " LOGIN PASSWORD 'wide-secret'",
		"CREATE DATABASE " + pgx.Identifier{name}.Sanitize() + " OWNER " + pgx.Identifier{role}.Sanitize(),
	} {
		_, err := control.Exec(t.Context(), sql)
		must(t, err)
	}
	cfg.User, cfg.Name, cfg.Password, cfg.ApplicationName = role, name, "wide-secret", strings.Repeat("own", 10)
	return cfg
}

func wideSession(t *testing.T, cfg config.Database, application string) *pgx.Conn {
	t.Helper()
	cc, err := db.ConnConfig(cfg, application)
	must(t, err)
	conn, err := pgx.ConnectConfig(t.Context(), cc)
	must(t, err)
	t.Cleanup(func() { _ = conn.PgConn().Conn().Close() })
	return conn
}

// mustFit runs a command line on a terminal, and checks each line that it prints.
func (s *stranger) mustFit(t *testing.T, line, typed, until string) {
	t.Helper()
	screen, keys, tty := dbtest.Terminal(t, 24, terminalWidth)
	_, err := keys.WriteString(typed + endOfInput)
	must(t, err)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	c := &cli{in: tty, out: tty, err: tty, environ: append(s.environ(), "TERM=xterm")}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.run(ctx, strings.Fields(s.values.Replace(line))[1:])
	}()
	if until != "" {
		dbtest.Eventually(t, line+" says "+until, func() bool { return strings.Contains(screen.String(), until) })
		interrupt()
	}
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s does not end:\n%s", line, screen)
	}
	_, err = tty.WriteString("the end\n") // all before it has been read, then
	must(t, err)
	dbtest.Eventually(t, "the terminal shows it", func() bool { return strings.Contains(screen.String(), "the end") })
	for shown := range strings.Lines(ownLine.ReplaceAllString(screen.String(), "\n")) {
		if w := ansi.StringWidth(shown); w > terminalWidth && !isToCopy(shown) {
			t.Errorf("%s: %d cells: %q", line, w, strings.TrimRight(shown, "\r\n"))
		}
	}
}

// ownLine is what a person sees as the end of a line: that of a progress bar, and the answer to a question.
var ownLine = regexp.MustCompile(`\r\x1b\[K|Username: `)

// toCopy matches commands and log lines, which are not wrapped.
var toCopy = regexp.MustCompile(`\bddtb (run|db-connections) -|\bpsql (-h|postgres:)|\bcurl 'http:|^time=`)

// isToCopy reports whether a line is a command, a log line, or one word.
func isToCopy(line string) bool {
	line = ansi.Strip(line)
	return len(strings.Fields(line)) == 1 || toCopy.MatchString(line)
}
