package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
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
	d.poller, d.close = o, o.Close
	for try := 1; ; try++ {
		_, err = o.Slots(ctx)
		if db.CauseOf(err) != db.SlotsExhausted {
			return err
		}
		if r, none := activity.FindShared(ctx, d.socketDirs(), cc); none == nil {
			d.poller, d.refused = r, err
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

// lasting is the poller of `monitor`, which outlives the server whose connection it uses: if that fails, or no slot is
// left, it opens another. A signal need not wait for that.
type lasting struct {
	*connections
	mu  sync.Mutex
	now activity.Poller // where signals go; while another is opened, still the earlier one
}

// Snapshot is part of activity.Poller. It is called by one goroutine at a time.
func (l *lasting) Snapshot(ctx context.Context) (activity.Snapshot, error) {
	s, err := l.poller.Snapshot(ctx)
	if _, remote := l.poller.(*activity.Remote); err == nil || !remote && db.CauseOf(err) != db.SlotsExhausted {
		return s, err
	}
	l.close()
	if err := l.open(ctx); err != nil {
		return s, err
	}
	l.mu.Lock()
	l.now = l.poller
	l.mu.Unlock()
	return l.poller.Snapshot(ctx)
}

// Signal is part of activity.Poller.
func (l *lasting) Signal(ctx context.Context, order activity.Order) (activity.Outcome, error) {
	l.mu.Lock()
	now := l.now
	l.mu.Unlock()
	return now.Signal(ctx, order)
}

// connConfig returns the server of --dsn, or the configured one without its pooler.
func (d *connections) connConfig() (*pgx.ConnConfig, error) {
	if d.dsn == "" {
		return db.ConnConfig(db.Direct(d.database()), d.application())
	}
	return d.parse("dsn", d.dsn)
}

// parse reads the DSN of a flag.
func (d *connections) parse(flag, dsn string) (*pgx.ConnConfig, error) {
	if err := db.CheckFilesOf(dsn); err != nil {
		return nil, usage("%v", err)
	}
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
	return !strings.HasPrefix(cc.Host, "/") && strings.ContainsAny(cc.Host, "@#?")
}

// application is the application_name of this run.
func (d *connections) application() string { return d.database().ApplicationName + "/db-connections" }

// fail reports why the server could not be inspected.
func (d *connections) fail(ctx context.Context, a action, err error) error {
	f := activity.Failure{Error: err.Error(), Health: activity.Unreachable(err)}
	if do := d.privateStopped(err); do != "" {
		f.Health.Findings[0].Do = do
	}
	if a.name == "health" || a.name == "doctor" {
		f.Health = f.Health.With(d.askProcesses(ctx)...)
	}
	f.Health = f.Health.Complete(d.sameServer)
	if db.CauseOf(err) == db.SlotsExhausted {
		r := activity.NoAccess(err, d.reached, d.passFile()).Complete(d.sameServer)
		f.Refusal = &r
	}
	failed := &exitError{code: exitFailed}
	if a.name == "health" {
		failed.code = int(f.Health.Level)
	}
	switch {
	case d.asJSON:
		failed.err = d.json(f)
	case f.Refusal != nil:
		d.printer.Refusal(*f.Refusal)
		if f.Health.Processes > 0 {
			d.say("\n")
			d.printer.Health(f.Health)
		}
	case a.name == "health", f.Health.Processes > 0:
		d.printer.Health(f.Health)
	case ctx.Err() == nil && !strings.Contains(err.Error(), f.Health.Findings[0].Do):
		failed.err = fmt.Errorf("%w%s%s", err, nextStep, f.Health.Findings[0].Do)
	default:
		failed.err = err
	}
	return failed
}

const dsnForms = "write it as postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=… or as " +
	"host=… port=… user=… password=… dbname=…; in a URL, " +
	"these characters of a password must be percent-encoded: % @ / : ? #"

// givenDSN is a flag with a connection string, as it was given.
type givenDSN struct{ name, value string }

// dsns returns the connection strings of this run; the value of one that was not given is "".
func (d *connections) dsns() []givenDSN {
	return []givenDSN{{"dsn", cmp.Or(d.dsnFile, d.dsn)}, {"pgbouncer", d.pooler}}
}

// variable stands for a connection string with a password, which is not repeated.
func (f givenDSN) variable() string { return "$" + strings.ToUpper(f.name) }

// sameServer completes the commands in a text, so that they reach the same server as this run.
func (d *connections) sameServer(text string) string {
	more := d.configFlag()
	for _, f := range d.dsns() {
		switch {
		case hasPassword(f.value):
			more += fmt.Sprintf(` --%s "%s"`, f.name, f.variable())
		case f.value != "":
			more += " --" + f.name + " " + activity.ShellQuote(f.value)
		}
	}
	s := d.suggester()
	s.byDSN = d.dsn != ""
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

// readDSN replaces --dsn @FILE by the file's contents, and warns about a password on the command line.
func (d *connections) readDSN() error {
	if path, is := strings.CutPrefix(d.dsn, "@"); is {
		content, _, err := db.ReadFile(path, 64<<10)
		if err != nil {
			return usage("--dsn: %s %v", path, err)
		}
		d.dsn, d.dsnFile = strings.TrimSpace(string(content)), d.dsn
		if d.dsn == "" {
			return usage("--dsn: %s is empty", path)
		}
		return nil
	}
	d.dsn = db.TrimLineBreak(d.dsn) // as of every text that is read
	if hasPassword(d.dsn) {
		d.log.Warn("every user of this machine can read the password in --dsn while the command runs (ps): " +
			"put the text into a file and write --dsn @FILE, or into DATABASE_URL, or the password into ~/.pgpass")
	}
	return nil
}

var passwordKey = regexp.MustCompile(`password\s*=`)

// hasPassword reports whether a connection string contains a password, or may contain one.
func hasPassword(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		_, has := u.User.Password()
		return has || u.Query().Has("password") || u.Query().Has("sslpassword")
	}
	return strings.Contains(dsn, "://") && strings.Contains(dsn, "@") || passwordKey.MatchString(dsn)
}
