package db_test

import (
	"strings"
	"testing"

	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestALoginByTheAccountThatIsRefusedSaysWhatToDoAndThatHelps(t *testing.T) {
	const socket = "/tmp"
	s := dbtest.NewServer(t, dbtest.Options{Settings: map[string]string{"unix_socket_directories": socket}})
	cfg := s.Config(t)
	control := dbtest.Control(t, cfg)
	var hba string
	must(t, control.QueryRow(t.Context(), "SHOW hba_file").Scan(&hba))
	write := func(lines ...string) {
		t.Helper()
		sql := "COPY (SELECT unnest(string_to_array('" + strings.Join(lines, "|") + "', '|'))) TO '" + hba + "'"
		for _, sql := range []string{sql, "SELECT pg_reload_conf()"} {
			if _, err := control.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	login := func() error {
		at := cfg
		at.Host = socket
		cc, err := db.ConnConfig(at, "peer")
		must(t, err)
		conn, err := db.Connect(t.Context(), cc)
		if err == nil {
			db.Disconnect(conn)
		}
		return err
	}
	write("local all all peer", "host all all 127.0.0.1/32 scram-sha-256")
	var err error
	dbtest.Eventually(t, "the server refuses", func() bool { err = login(); return err != nil })
	if hint := db.Hint(err); !strings.Contains(hint, `host = "127.0.0.1"`) || !strings.Contains(err.Error(), hint) {
		t.Fatalf("%q: %v", hint, err)
	}
	write("local all all scram-sha-256", "local all all peer", "host all all 127.0.0.1/32 scram-sha-256") // as the hint says
	dbtest.Eventually(t, "the server lets it in", func() bool { return login() == nil })
}
