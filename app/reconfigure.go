package app

import (
	"reflect"

	"ddtb/config"
)

// needRestart returns the sections that differ and are read only at start.
func needRestart(old, now *config.Config) (sections []string) {
	for _, s := range []struct {
		name     string
		old, now any
	}{
		{"server", old.Server, now.Server},
		{"admin", old.Admin, now.Admin},
		{"mail", old.Mail, now.Mail},
		{"sentry", old.Sentry, now.Sentry},
		{"tracing", old.Tracing, now.Tracing},
		{"monitor", old.Monitor, now.Monitor},
	} {
		if !reflect.DeepEqual(s.old, s.now) {
			sections = append(sections, s.name)
		}
	}
	return sections
}
