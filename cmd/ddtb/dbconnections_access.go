package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/localpg"
)

// The attempts to connect while no slot is free: one becomes free from time to time. An Observer caches a failure for a
// second.
const (
	tries    = 3
	tryAgain = 1100 * time.Millisecond
)

// open finds an access path to the server: a connection, or that of a running ddtb server if no slot is free.
func (d *connections) open(ctx context.Context) error {
	cc, err := d.connConfig()
	if err != nil {
		return err
	}
	d.reached = cc
	o := activity.NewObserverWith(cc, d.database().ApplicationName)
	o.PassFile = d.passFile()
	d.access, d.close = o, o.Close
	for try := 1; ; try++ {
		_, err = o.Slots(ctx)
		if db.CauseOf(err) != db.SlotsExhausted {
			return err
		}
		if r, none := activity.FindShared(ctx, d.socketDirs(), cc); none == nil {
			d.access, d.refused = r, err
			return nil
		}
		if try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(tryAgain):
		}
	}
}

// askProcesses queries the running servers of the same database for their leases, which PostgreSQL does not show.
func (d *connections) askProcesses(ctx context.Context) []activity.Process {
	if d.reached == nil {
		return nil
	}
	return activity.AskProcesses(ctx, d.socketDirs(), d.reached)
}

func (d *connections) socketDirs() []string {
	return activity.SocketDirs(d.environment("XDG_RUNTIME_DIR"))
}

// lasting is the access of a monitor, which outlives the server whose connection it uses: if that fails, or no slot is
// left, it opens another. A signal need not wait for that.
type lasting struct {
	*connections
	mu  sync.Mutex
	now activity.Access // where signals go; while another is opened, still the earlier one
}

// Snapshot is part of activity.Access. It is called by one goroutine at a time.
func (l *lasting) Snapshot(ctx context.Context) (activity.Snapshot, error) {
	s, err := l.access.Snapshot(ctx)
	if _, remote := l.access.(*activity.Remote); err == nil || !remote && db.CauseOf(err) != db.SlotsExhausted {
		return s, err
	}
	l.close()
	if err := l.open(ctx); err != nil {
		return s, err
	}
	l.mu.Lock()
	l.now = l.access
	l.mu.Unlock()
	return l.access.Snapshot(ctx)
}

// Signal is part of activity.Access.
func (l *lasting) Signal(ctx context.Context, order activity.Order) (activity.Outcome, error) {
	l.mu.Lock()
	now := l.now
	l.mu.Unlock()
	return now.Signal(ctx, order)
}

// connConfig returns the server of --dsn, or the configured one without its pooler.
func (d *connections) connConfig() (*pgx.ConnConfig, error) {
	cfg := d.database()
	if d.dsn == "" {
		if cfg.Pooler != "" {
			cfg = db.Direct(cfg)
		}
		return db.ConnConfig(cfg, d.application())
	}
	return d.parse("dsn", d.dsn)
}

// parse reads the DSN of a flag.
func (d *connections) parse(flag, dsn string) (*pgx.ConnConfig, error) {
	cc, err := pgx.ParseConfig(dsn)
	if err != nil || misread(cc) { // its text may contain parts of the password
		return nil, usage("--%s can't be read: %s", flag, dsnForms)
	}
	db.Complete(cc, d.application())
	cc.ConnectTimeout = cmp.Or(cc.ConnectTimeout, d.database().ConnectTimeout)
	return cc, nil
}

// misread reports whether a DSN was read as something else than was meant: a URL of another kind, such as a driver's
// jdbc:…, as keywords, or the end of a password as the host.
func misread(cc *pgx.ConnConfig) bool {
	for key := range cc.RuntimeParams {
		if strings.ContainsAny(key, ":/?") {
			return true
		}
	}
	return strings.ContainsAny(cc.Host, "@#?")
}

// application is the application_name of this run.
func (d *connections) application() string { return d.database().ApplicationName + "/db-connections" }

// fail reports why the server could not be inspected.
func (d *connections) fail(ctx context.Context, a action, err error) error {
	h := activity.Unreachable(err)
	if a.name == "health" || a.name == "doctor" {
		h = h.With(d.askProcesses(ctx)...)
	}
	h = h.Complete(d.sameServer)
	code := exitFailed
	if a.name == "health" {
		code = int(h.Level)
	}
	full := db.CauseOf(err) == db.SlotsExhausted
	switch {
	case d.asJSON && full:
		r := d.noAccess(err)
		err = d.json(activity.Failure{Error: err.Error(), Health: h, Refusal: &r})
	case d.asJSON:
		err = d.json(activity.Failure{Error: err.Error(), Health: h})
	case full:
		d.printer.Refusal(d.noAccess(err))
		if h.Processes > 0 {
			d.say("\n")
			d.printer.Health(h)
		}
		err = nil
	case a.name == "health", h.Processes > 0:
		d.printer.Health(h)
		err = nil
	default:
		if ctx.Err() == nil {
			err = fmt.Errorf("%w\nWhat to do: %s", err, h.Findings[0].Do)
		}
	}
	return &exitError{code, err}
}

func (d *connections) noAccess(err error) activity.Refusal {
	return activity.NoAccess(err, d.reached, d.passFile()).Complete(d.sameServer)
}

const dsnForms = "write it as postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=… or as " +
	"host=… port=… user=… password=… dbname=…; in a URL, " +
	"these characters of a password must be percent-encoded: % @ / : ? #"

// secretIn reports whether a DSN may contain a password. @FILE names a file that has it.
func secretIn(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return hasPassword(dsn) || u.Query().Has("sslpassword")
	}
	return !strings.HasPrefix(dsn, "@") && (strings.Contains(dsn, "password") || strings.Contains(dsn, "@"))
}

// sameServer completes the commands in a text, so that they reach the same server as this run. A DSN with a password is
// not repeated.
func (d *connections) sameServer(text string) string {
	more := d.configFlag()
	for _, f := range []struct{ name, value string }{{"dsn", cmp.Or(d.dsnFile, d.dsn)}, {"pgbouncer", d.pooler}} {
		switch {
		case secretIn(f.value):
			more += fmt.Sprintf(` --%s "$%s"`, f.name, strings.ToUpper(f.name))
		case f.value != "":
			more += " --" + f.name + " " + activity.ShellQuote(f.value)
		}
	}
	s := d.suggester()
	s.flags = map[string]string{"db-connections": more}
	return s.complete(text)
}

// passFile returns the file with the passwords of the private PostgreSQL, if that is the server of this run.
func (d *connections) passFile() string {
	if d.dsn != "" {
		dsn, err := url.Parse(d.dsn)
		if err != nil || dsn.Hostname() != "127.0.0.1" {
			return ""
		}
		if file := dsn.Query().Get("passfile"); file == localpg.PassFile(filepath.Dir(file)) {
			return file
		}
		return ""
	}
	if d.cfg.Origins["databases.default.password_file"].Flag == "" {
		return ""
	}
	return localpg.PassFile(filepath.Dir(d.database().PasswordFile))
}
