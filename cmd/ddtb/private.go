package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/localpg"
)

// privateDir returns the directory of the private server's data. data is the flag --data, or "".
func (c *cli) privateDir(data string) (string, error) {
	if data != "" {
		return filepath.Abs(data)
	}
	return localpg.DefaultDir(c.environment("XDG_DATA_HOME"))
}

// loadForServer reads the configuration for a command that needs a database. If it names none, it uses the private
// server of a running `ddtb run`: the one in the default directory, or else the last one that was started with --data.
func (c *cli) loadForServer() (*config.Config, error) {
	last, _ := os.ReadFile(c.lastDirFile()) // without it there was none
	cfg, err := c.loadWithPrivate(string(last))
	if err == nil && !locatesDatabase(cfg) {
		c.again = c.startsPrivate(string(last))
	}
	return cfg, err
}

// startsPrivate returns the command that starts the private server again, with its data in the default directory or in
// other; "": there is no data.
func (c *cli) startsPrivate(other string) string {
	standard, err := c.privateDir("")
	switch {
	case err == nil && !localpg.Since(standard).IsZero():
		return "ddtb run"
	case other != "" && !localpg.Since(other).IsZero():
		return "ddtb run --data " + activity.ShellQuote(other)
	}
	return ""
}

// loadWithPrivate is loadForServer with the directory of another private server; "": there is none.
func (c *cli) loadWithPrivate(other string) (*config.Config, error) {
	o := c.options()
	cfg, err := c.load(o)
	if err != nil || locatesDatabase(cfg) {
		return cfg, err
	}
	standard, _ := c.privateDir("") // without a home there is none
	for _, dir := range []string{standard, other} {
		if dir == "" {
			continue
		}
		if login, ok := localpg.Running(dir, demoDatabase, demoRole); ok {
			o.Flags = append(o.Flags, place(login)...)
			c.log.Debug("the configuration names no database: this is the private server of `ddtb run`", "port", login.Port, "data", dir)
			return c.load(o)
		}
	}
	return cfg, nil
}

// privateStopped returns what to do if no server answered at all, where the private one of `ddtb run` is meant and it is
// stopped; else "".
func (c *cli) privateStopped(err error) string {
	_, answered := errors.AsType[*pgconn.PgError](err)
	if c.again == "" || answered || db.CauseOf(err) != db.ServerUnavailable {
		return ""
	}
	return "no server is named, by DATABASE_URL or the configuration, and the private PostgreSQL is stopped: start it with `" + c.again + "`"
}

// lastDirFile returns the path of the file that names the directory of the private server that was started last with
// --data. It is "" if there is no home.
func (c *cli) lastDirFile() string {
	dir := c.stateDir()
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "last-data-dir")
}

// noteDir writes lastDirFile.
func (c *cli) noteDir(dir string) {
	err := os.MkdirAll(filepath.Dir(c.lastDirFile()), 0o700)
	if err == nil {
		err = os.WriteFile(c.lastDirFile(), []byte(dir), 0o600)
	}
	if err != nil {
		c.log.Warn("commands find this PostgreSQL only with --dsn", "error", err)
	}
}

// privateLogin names the private PostgreSQL as the origin of settings, in place of a flag that was given.
const privateLogin = "ddtb run"

// place returns flags that override the configured database with the private PostgreSQL's login.
func place(login config.Database) []config.Flag {
	var flags []config.Flag
	for key, value := range map[string]string{
		"name": login.Name, "user": login.User, "password_file": login.PasswordFile,
		"host": login.Host, "port": strconv.Itoa(login.Port), "sslmode": login.SSLMode,
		"pooler": "", "channel_binding": login.ChannelBinding, "target_session_attrs": "any", "options": login.Options,
	} {
		flags = append(flags, config.Flag{Name: privateLogin, Key: "databases.default." + key, Value: value})
	}
	return flags
}

// locatesDatabase reports whether the configuration names a database, a user or a server. All are empty in the file that
// `ddtb run` writes.
func locatesDatabase(cfg *config.Config) bool {
	d := cfg.Databases["default"]
	return d.Name != "" || d.User != "" || d.Host != "" || len(d.Hosts) > 0
}
