package main

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"ddtb/config"
	"ddtb/db/activity"
)

// suggester completes suggested commands, so that they reach the same server when they are pasted into a terminal.
type suggester struct {
	program string            // as this one was called
	flags   map[string]string // of each subcommand, each with a space before it
}

// suggested is a command of ours, alone or quoted in a sentence. After sudo it runs elsewhere, and stays as it is.
var suggested = regexp.MustCompile("(^|`)ddtb (db-connections|strategy|config|migrate|lab)\\b")

// complete returns the text with the program and the flags in each of its commands.
func (s suggester) complete(text string) string {
	return suggested.ReplaceAllStringFunc(text, func(found string) string {
		m := suggested.FindStringSubmatch(found)
		return m[1] + s.program + " " + m[2] + s.flags[m[2]]
	})
}

// suggestions returns the suggester for the server that listens on addr. dsn is the flag that names its database, "" if
// the configuration does.
func (c *cli) suggestions(cfg *config.Config, addr net.Addr, dsn string) suggester {
	server := c.configFlag()
	if cfg.Server.Addr != addr.String() || cfg.Origins["server.addr"].Flag != "" {
		server += " --addr " + clickable(addr)
	}
	return suggester{c.program(), map[string]string{
		"db-connections": c.configFlag() + dsn, "strategy": server, "config": c.configFlag(), "migrate": c.configFlag(),
	}}
}

// dsnFlag returns the flag that names the private PostgreSQL, from a file, so that the password is in no command. It is
// empty where commands find that server by themselves.
func (c *cli) dsnFlag(dir string, login config.Database) (string, error) {
	if found, err := c.loadForServer(); err == nil {
		if d := found.Databases["default"]; d.Host == login.Host && d.Port == login.Port && d.Name == login.Name {
			return "", nil
		}
	}
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword(login.User, string(login.Password)),
		Host: net.JoinHostPort(login.Host, strconv.Itoa(login.Port)), Path: "/" + login.Name, RawQuery: "sslmode=" + login.SSLMode,
	}
	file := filepath.Join(dir, login.User+".dsn")
	if err := os.WriteFile(file, []byte(dsn.String()+"\n"), 0o600); err != nil {
		return "", err
	}
	return " --dsn " + activity.ShellQuote("@"+file), nil
}
