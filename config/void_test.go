package config

import (
	"slices"
	"strings"
	"testing"
)

func TestASettingThatAnotherMakesVoidIsWarnedOf(t *testing.T) {
	const d = "[databases.default]\n"
	for _, c := range []struct {
		name, file string
		environ    []string
		warning    string // "": none
	}{
		{"statement_timeout behind a pooler", d + "pooler = 'pgbouncer'\ndirect_host = 'h'\nstatement_timeout = '5s'", nil, "statement_timeout (ddtb.toml:4) has no effect"},
		{"statement_timeout without", d + "statement_timeout = '5s'", nil, ""},
		{"direct_host without a pooler", d + "direct_host = 'h'", nil, "have no effect without pooler"},
		{"CONN_MAX_AGE under pool", "", []string{"CONN_MAX_AGE=0"}, `CONN_MAX_AGE (databases.default.persistent.conn_max_age) has no effect with strategy = "pool"`},
		{"CONN_MAX_AGE under per-request", d + "strategy = 'per-request'", []string{"CONN_MAX_AGE=0"}, "each request has a new connection"},
		{"CONN_MAX_AGE under multiplex", d + "strategy = 'multiplex'", []string{"CONN_MAX_AGE=5"}, "has no effect"},
		{"CONN_MAX_AGE under persistent", d + "strategy = 'persistent'", []string{"CONN_MAX_AGE=0"}, ""},
		{"DB_MAX_CONNS under per-request", d + "strategy = 'per-request'", []string{"DB_MAX_CONNS=5"}, "per_request.max_size bounds this strategy"},
		{"DB_MAX_CONNS under persistent", d + "strategy = 'persistent'", []string{"DB_MAX_CONNS=5"}, "persistent.workers bounds this strategy"},
		{"DB_MAX_CONNS under pool", "", []string{"DB_MAX_CONNS=5"}, ""},
		{"the file's, to be switched to", d + "strategy = 'pool'\n[databases.default.persistent]\nconn_max_age = '5s'", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := mustLoad(t, c.file, c.environ...)
			found := slices.ContainsFunc(cfg.Warnings, func(w string) bool {
				return strings.Contains(strings.ReplaceAll(w, cfg.File, "ddtb.toml"), c.warning)
			})
			if (c.warning != "") != (len(cfg.Warnings) > 0) || c.warning != "" && !found {
				t.Errorf("%q", cfg.Warnings)
			}
		})
	}
}
