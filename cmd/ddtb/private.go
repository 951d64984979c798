package main

import (
	"ddtb/config"
	"ddtb/db/localpg"
)

// loadForServer reads the configuration for a command that needs a database. If it names none, it uses the private
// server of a running `ddtb run`.
func (c *cli) loadForServer() (*config.Config, error) {
	o := c.options()
	cfg, err := c.load(o)
	if err != nil || namesDatabase(cfg) {
		return cfg, err
	}
	dir, err := localpg.DefaultDir(c.environment("XDG_DATA_HOME"))
	if err != nil {
		return cfg, nil //nolint:nilerr // there is no home, so there is no private server
	}
	login, ok := localpg.Running(dir, demoDatabase, demoRole)
	if !ok {
		return cfg, nil
	}
	o.Flags = append(o.Flags, place(login)...)
	c.log.Debug("the configuration names no database: this is the private server of `ddtb run`", "port", login.Port)
	return c.load(o)
}

// namesDatabase reports whether the configuration names a database or its server. Both are empty in the file that `ddtb
// run` writes.
func namesDatabase(cfg *config.Config) bool {
	d := cfg.Databases["default"]
	return d.Name != "" || d.User != "" || d.Host != "" || len(d.Hosts) > 0
}
