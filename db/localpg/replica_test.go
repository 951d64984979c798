//go:build unix

package localpg_test

import (
	"testing"

	"ddtb/db/dbtest"
	"ddtb/db/localpg"
)

func TestAStandbyIsACopyOfAServerThatWasStopped(t *testing.T) {
	o := localpg.Options{Dir: made(t), Settings: map[string]string{
		"wal_level": "replica", "max_wal_senders": "3", "wal_retrieve_retry_interval": "100ms",
	}}
	primary := start(t, o)
	conn := login(t, primary.Config("postgres"))
	_, err := conn.Exec(t.Context(), "CREATE TABLE numbers AS SELECT 1 AS n; SELECT pg_create_physical_replication_slot('theirs', true)")
	must(t, err)
	of := localpg.Options{Dir: home(t), Settings: o.Settings, ReplicaOf: primary}
	refused(t, of, "runs: stop it before its data is copied")
	stop(t, primary)
	standby := start(t, of)
	follower := login(t, standby.Config("postgres"))
	count := func() (standing bool, rows, slots int) {
		must(t, follower.QueryRow(t.Context(), `SELECT pg_is_in_recovery(), (SELECT count(*) FROM numbers),
			(SELECT count(*) FROM pg_replication_slots)`).Scan(&standing, &rows, &slots))
		return standing, rows, slots
	}
	if standing, rows, slots := count(); !standing || rows != 1 || slots != 0 {
		t.Errorf("before the primary runs: a standby: %v; %d rows, %d slots", standing, rows, slots)
	}
	o.Port = primary.Port()
	_, err = login(t, start(t, o).Config("postgres")).Exec(t.Context(), "INSERT INTO numbers VALUES (2)")
	must(t, err)
	dbtest.Eventually(t, "it follows", func() bool { _, rows, _ := count(); return rows == 2 })
}
