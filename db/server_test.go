package db_test

import (
	"errors"
	"net"
	"strconv"
	"testing"

	"ddtb/db"
	"ddtb/db/dbtest"
)

// TestOfSeveralHostsTheOneThatAnsweredIsNamed has a port that refuses before the server's.
func TestOfSeveralHostsTheOneThatAnsweredIsNamed(t *testing.T) {
	t.Parallel()
	cfg := dbtest.Config(t)
	server := net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))
	cfg.Hosts = db.Hosts("127.0.0.1:1," + server)
	connect := func(t *testing.T, cfg db.Settings) (string, error) {
		t.Helper()
		cc, err := db.ConnConfig(cfg, "several")
		must(t, err)
		conn, err := db.Connect(t.Context(), cc)
		if err != nil {
			return "", err
		}
		defer db.Disconnect(conn)
		return db.ServerOf(conn), nil
	}
	named := func(t *testing.T, err error, want string) {
		t.Helper()
		if ce, ok := errors.AsType[*db.ConnError](err); !ok || ce.Server != want {
			t.Errorf("%v names %q, want %q", err, ce.Server, want)
		}
	}
	t.Run("when it accepts", func(t *testing.T) {
		if got, err := connect(t, cfg); got != server || err != nil {
			t.Errorf("%q, %v, want %q", got, err, server)
		}
	})
	t.Run("when it refuses", func(t *testing.T) {
		wrong := cfg
		wrong.Name = "nothing"
		_, err := connect(t, wrong)
		named(t, err, server)
	})
	t.Run("when it ends the session", func(t *testing.T) {
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		defer func() { _ = d.Close(t.Context()) }()
		_, err = d.Exec(t.Context(), "SELECT pg_terminate_backend(pg_backend_pid())")
		named(t, err, server)
	})
	t.Run("unless none does", func(t *testing.T) {
		gone := cfg
		gone.Hosts = "127.0.0.1:1,127.0.0.1:2"
		_, err := connect(t, gone)
		named(t, err, "")
	})
}
