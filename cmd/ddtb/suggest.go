package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"ddtb/config"
	"ddtb/db/activity"
	"ddtb/db/localpg"
)

// suggester completes suggested commands, so that they reach the same server when they are pasted into a terminal.
type suggester struct {
	program  string            // as this one was called
	config   string            // the flag --config of every command, with a space before it
	flags    map[string]string // of each subcommand in place of config, each with a space before it
	passFile string            // see activity.Observer.PassFile
	byDSN    bool              // only db-connections, with its flags, reaches the database
}

// suggested is a command of ours, alone or quoted in a sentence.
var suggested = regexp.MustCompile("(^|`)ddtb (run|runserver|strategy|migrate|loaddemo|createsuperuser|changepassword|" +
	"db-connections|sendtestemail|config|healthcheck|lab)\\b")

// complete returns the text with the program and the flags in each of its commands. A command that has them stays as it
// is.
func (s suggester) complete(text string) string {
	if s.byDSN { // this would log in to the configured database
		text = strings.ReplaceAll(text, "ddtb config check --connect", "ddtb db-connections status")
	}
	var b strings.Builder
	end := 0
	for _, at := range suggested.FindAllStringSubmatchIndex(text, -1) {
		command := text[at[4]:at[5]]
		flags, special := s.flags[command]
		if !special {
			flags = s.config
		}
		b.WriteString(text[end:at[3]] + s.program + " " + command)
		if end = at[5]; !strings.HasPrefix(text[end:], flags) {
			b.WriteString(flags)
		}
	}
	return b.String() + text[end:]
}

// suggester returns the completion of commands in messages.
func (c *cli) suggester() suggester { return suggester{program: c.program(), config: c.configFlag()} }

// suggestions returns the suggester for the server that listens on addr. private is the directory of its private
// PostgreSQL; "": its database is configured.
func (c *cli) suggestions(cfg *config.Config, addr net.Addr, private string) suggester {
	s := c.suggester()
	server := s.config
	if cfg.Server.Addr != addr.String() || cfg.Origins["server.addr"].Flag != "" {
		server += " --addr " + clickable(addr)
	}
	s.flags = map[string]string{"strategy": server}
	if private != "" {
		s.passFile = localpg.PassFile(private)
		dsn := c.dsnFlag(cfg.Databases["default"], s.passFile)
		s.flags["db-connections"], s.byDSN = s.config+dsn, dsn != ""
	}
	return s
}

// dsnFlag returns the flag that names the private PostgreSQL. It is empty where commands find that server by themselves,
// even if another one is started with --data.
func (c *cli) dsnFlag(login config.Database, passFile string) string {
	if found, err := c.loadWithPrivate(""); err == nil {
		if d := found.Databases["default"]; d.Host == login.Host && d.Port == login.Port && d.Name == login.Name {
			return ""
		}
	}
	return " --dsn " + activity.ShellQuote(privateDSN(login)+"?sslmode=disable&channel_binding=disable&passfile="+strings.ReplaceAll(url.QueryEscape(passFile), "%2F", "/"))
}

// privateDSN returns the address of the private PostgreSQL for psql, without its password.
func privateDSN(login config.Database) string {
	return fmt.Sprintf("postgres://%s@%s:%d/%s", login.User, login.Host, login.Port, login.Name)
}

// program returns how this program was called, for suggested commands that may be typed in another directory.
func (c *cli) program() string {
	called := os.Args[0]
	if !strings.ContainsRune(called, filepath.Separator) || strings.HasSuffix(called, ".test") {
		return "ddtb"
	}
	if absolute, err := filepath.Abs(called); err == nil {
		called = absolute
	}
	return activity.ShellQuote(called)
}
