package main

import (
	"net/url"
	"regexp"
	"strings"

	"ddtb/db"
)

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
	d.dsn = strings.TrimRight(d.dsn, "\r\n") // as of every text that is read: a line break is no part of it
	if hasPassword(d.dsn) {
		d.log.Warn("every user of this machine can read the password in --dsn while the command runs (ps): " +
			"put the text into a file and write --dsn @FILE, or into DATABASE_URL, or the password into ~/.pgpass")
	}
	return nil
}

var passwordKey = regexp.MustCompile(`(^|\s)password\s*=`)

// hasPassword reports whether a connection string contains a password.
func hasPassword(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		_, has := u.User.Password()
		return has || u.Query().Get("password") != ""
	}
	return strings.Contains(dsn, "://") && strings.Contains(dsn, "@") || passwordKey.MatchString(dsn)
}
