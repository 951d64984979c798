package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// The ways in which the members of kinds are played.

// command is what a command prints after a change of the settings.
func command(change func(*config.Database), args ...string) answer {
	return func(_ *testing.T, m *machine, cfg config.Database) string {
		if change != nil {
			change(&cfg)
		}
		m.configure(cfg, fmt.Sprintf("options = %q", cfg.Options))
		o := m.run("", args...)
		return o.out + o.err
	}
}

// after is an answer after statements of a superuser. $ROLE and $DB stand for the role's and the database's name.
func after(next answer, statements ...string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		prepare(t, dbtest.Control(t, cfg), cfg, statements...)
		return next(t, m, cfg)
	}
}

func prepare(t *testing.T, control *pgx.Conn, cfg config.Database, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		run(t, control, strings.NewReplacer("$ROLE", pgx.Identifier{cfg.User}.Sanitize(), "$DB", pgx.Identifier{cfg.Name}.Sanitize()).Replace(sql))
	}
}

// shown is a page of a server that was started after the statements.
func shown(path string, statements ...string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		m.run("", "loaddemo")
		prepare(t, dbtest.Control(t, cfg), cfg, statements...)
		_, body := m.in(t).serving("runserver", "127.0.0.1:0").page(path)
		return body
	}
}

// overtime is the page of a server whose role has 1 ms for a statement since before its start. A lock keeps the statement
// that long, however fast the machine is.
func overtime(t *testing.T, m *machine, cfg config.Database) string {
	m.run("", "loaddemo")
	control := dbtest.Control(t, cfg)
	prepare(t, control, cfg, "ALTER ROLE $ROLE SET statement_timeout = '1ms'")
	p := m.in(t).serving("runserver", "127.0.0.1:0")
	prepare(t, control, cfg, "BEGIN", "LOCK TABLE polls_question")
	_, body := p.page("/polls/")
	return body
}

// voted is the answer to a vote at a running server after the statements.
func voted(statements ...string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		m.run("", "loaddemo")
		p := m.in(t).serving("runserver", "127.0.0.1:0")
		prepare(t, dbtest.Control(t, cfg), cfg, statements...)
		resp, err := fresh.PostForm(p.url+"/polls/1/vote/", url.Values{"choice": {"1"}}) //nolint:noctx // the server has deadlines
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return asText(t, resp)
	}
}

func asText(t *testing.T, resp *http.Response) string {
	t.Helper()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// inPlace puts something else in the place of the choices.
func inPlace(of string) []string {
	return []string{
		"ALTER TABLE polls_choice RENAME TO the_choices", "CREATE " + of + " polls_choice AS SELECT DISTINCT * FROM the_choices",
		"GRANT ALL ON polls_choice TO $ROLE",
	}
}

// trigger has each vote run the body.
func trigger(body string) []string {
	return []string{
		"CREATE FUNCTION on_vote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + " END $$",
		"CREATE TRIGGER t BEFORE UPDATE ON polls_choice FOR EACH ROW EXECUTE FUNCTION on_vote()",
	}
}

// encoded is an answer in a database of that encoding.
func encoded(encoding string, next answer) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		cfg.Name = cfg.User // that has another database
		control := dbtest.Control(t, cfg)
		cfg.Name += "_" + encoding
		prepare(t, control, cfg, "CREATE DATABASE $DB OWNER $ROLE TEMPLATE template0 ENCODING '"+encoding+"' LC_COLLATE 'C' LC_CTYPE 'C'")
		t.Cleanup(func() {
			for _, sql := range []string{
				"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + cfg.Name + "'",
				"DROP DATABASE " + pgx.Identifier{cfg.Name}.Sanitize(),
			} {
				if _, err := control.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
					t.Error(err)
				}
			}
		})
		m.configure(cfg)
		m.run("", "migrate").must(exitFine)
		return next(t, m, cfg)
	}
}

// session runs a statement of the role's own, in the database's encoding.
func session(t *testing.T, cfg config.Database, encoding string) *pgx.Conn {
	t.Helper()
	cc, err := db.ConnConfig(cfg, "session")
	if err != nil {
		t.Fatal(err)
	}
	cc.RuntimeParams["client_encoding"] = encoding
	cc.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := db.Connect(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Disconnect(conn) })
	return conn
}

const noUTF8 = "caf\xe9"

// storedBytes is the list of polls when one's text is not in the database's encoding.
func storedBytes(t *testing.T, m *machine, cfg config.Database) string {
	run(t, session(t, cfg, "SQL_ASCII"), "INSERT INTO polls_question (question_text, pub_date) VALUES ('"+noUTF8+"', now())")
	p := m.in(t).serving("runserver", "127.0.0.1:0")
	_, body := p.page("/polls/")
	return body
}

// seenFrom is the status, from a database of that encoding, when a session's query is in LATIN1.
func seenFrom(encoding string) answer {
	return encoded("LATIN1", func(t *testing.T, m *machine, cfg config.Database) string {
		run(t, session(t, cfg, "LATIN1"), "BEGIN; SELECT '"+noUTF8+"'")
		return encoded(encoding, command(nil, "db-connections", "status", "--json"))(t, m, cfg)
	})
}

// greeted is the page when the host is a server that says this at once.
func greeted(text string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		port, err := strconv.Atoi(greeter(t, text))
		must(t, err)
		return page(func(c *config.Database) { c.Port = port })(t, m, cfg)
	}
}

// greeter returns the port of a server that greets each client with the text.
func greeter(t *testing.T, text string) (port string) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_, _ = conn.Write([]byte(text))
			_, _ = conn.Read(make([]byte, 100))
			_ = conn.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// hurt is an answer of a server of its own, for what would harm other tests.
func hurt(o dbtest.Options, do func(*testing.T, *machine, *dbtest.Server, config.Database) string) answer {
	return func(t *testing.T, m *machine, _ config.Database) string {
		s := dbtest.NewServer(t, o)
		cfg := s.Config(t)
		m.configure(cfg)
		return do(t, m, s, cfg)
	}
}

// hung is the page when the server stops to answer during a query.
func hung(t *testing.T, _ *machine, s *dbtest.Server, cfg config.Database) string {
	cfg.QueryTimeout = time.Second
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(t.Context()) }()
	if _, err := d.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	s.Pause(t)
	defer s.Resume(t)
	_, err = d.Exec(t.Context(), "UPDATE polls_choice SET votes = 0")
	return web.ProblemOf(err).Detail
}

// locked is the page when a program has so many locks that a session can't begin.
func locked(t *testing.T, _ *machine, _ *dbtest.Server, cfg config.Database) string {
	lockAll(t, cfg)
	return web.ProblemOf(asked(t, cfg)).Detail
}

func lockedForTheDoctor(t *testing.T, m *machine, _ *dbtest.Server, cfg config.Database) string {
	lockAll(t, cfg)
	o := m.run("", "db-connections", "doctor")
	return o.out + o.err
}

// lockAll takes advisory locks until the server has room for no other. The session keeps them after the error.
func lockAll(t *testing.T, cfg config.Database) {
	t.Helper()
	cc, err := db.ConnConfig(cfg, "locks")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Connect(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Disconnect(conn) })
	dbtest.Eventually(t, "a session can't begin", func() bool {
		_, _ = conn.Exec(t.Context(), "SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) n") // until it fails
		return asked(t, cfg) != nil
	})
}

// crowded is the page when every slot of the server is taken.
func crowded(t *testing.T, _ *machine, s *dbtest.Server, cfg config.Database) string {
	for {
		cc, err := db.ConnConfig(cfg, "crowd")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := db.Connect(t.Context(), cc)
		if err != nil {
			return web.ProblemOf(asked(t, cfg)).Detail
		}
		defer db.Disconnect(conn)
	}
}

// dropped is the page after DROP DATABASE … WITH (FORCE) under a running server, which serves again when the database is
// there again.
func dropped(t *testing.T, m *machine, cfg config.Database) string {
	p := m.in(t).serving("runserver", "127.0.0.1:0")
	control := dbtest.Control(t, dbtest.Config(t)) // in another database
	prepare(t, control, cfg, "DROP DATABASE $DB WITH (FORCE)")
	var body string
	dbtest.Eventually(t, "the page says so", func() bool {
		_, body = p.page("/polls/")
		return strings.Contains(body, "login rejected")
	})
	prepare(t, control, cfg, "CREATE DATABASE $DB OWNER $ROLE TEMPLATE ddtb_template")
	dbtest.Eventually(t, "it serves again", func() bool { return p.get("/polls/") == http.StatusOK })
	return body
}

// closed is the page of a database that accepts no connections.
func closed(t *testing.T, m *machine, cfg config.Database) string {
	prepare(t, dbtest.Control(t, dbtest.Config(t)), cfg, "ALTER DATABASE $DB ALLOW_CONNECTIONS false")
	return page(func(*config.Database) {})(t, m, cfg)
}

// passFile is check with a libpq password file of that form and mode.
func passFile(form string, mode os.FileMode) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		prepare(t, dbtest.Control(t, cfg), cfg, `ALTER ROLE $ROLE PASSWORD 'a:b\c'`)
		path := filepath.Join(t.TempDir(), "pgpass")
		text := strings.NewReplacer("HOST", cfg.Host, "PORT", fmt.Sprint(cfg.Port), "NAME", cfg.Name).Replace(form)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		cfg.Password = ""
		m.configure(cfg)
		m.secrets = append(m.secrets, `a:b\c`)
		m = m.in(t)
		m.more = []string{"PGPASSFILE=" + path} // of a process: the driver reads it
		return m.start("config", "check", "--connect").ends().out
	}
}

// serviceFile is check with a service file that begins so.
func serviceFile(form string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		path := filepath.Join(t.TempDir(), "services")
		text := fmt.Sprintf(form, cfg.Host, cfg.Port, cfg.User, cfg.Name, cfg.Password.Reveal())
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return environment(func(config.Database) []string { return []string{"PGSERVICE=polls", "PGSERVICEFILE=" + path} })(t, m, cfg)
	}
}
