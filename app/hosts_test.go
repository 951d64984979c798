package app_test

import (
	"fmt"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestASecondPrimaryIsNoticedWhileTheServerRuns(t *testing.T) {
	t.Parallel()
	primary := dbtest.NewServer(t, dbtest.Replicated())
	cfg := primary.Config(t)
	standby := primary.NewReplica(t)
	control := primary.Control(t, "postgres")
	for _, f := range []string{"pg_control_system", "pg_control_checkpoint"} {
		if _, err := control.Exec(t.Context(), "GRANT EXECUTE ON FUNCTION "+f+"() TO "+cfg.User); err != nil {
			t.Fatal(err)
		}
	}
	other := standby.Reach(cfg)
	s := siteOn(t, cfg, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) {
			d.Hosts = db.Hosts(fmt.Sprintf("%s:%d,%s:%d", cfg.Host, cfg.Port, other.Host, other.Port))
		})
		c.Monitor.Interval = 10 * time.Millisecond
	})
	const problem = "the hosts of [databases.default] are not one database"
	if s.log.Count("level=ERROR", problem) != 0 {
		t.Error(s.log.String())
	}
	there := standby.Control(t, "postgres")
	dbtest.Eventually(t, "it is promoted", func() bool { // recovery may cancel the statement
		_, err := there.Exec(t.Context(), "SELECT pg_promote(false)")
		return err == nil
	})
	dbtest.Eventually(t, "it is logged", func() bool { return s.log.Count("level=ERROR", problem, "several of the hosts take writes") > 0 })
	standby.Stop(t, "immediate") // which proves nothing
	<-time.After(time.Second)    // three polls
	if n := s.log.Count("are one database again"); n != 0 {
		t.Errorf("the end is reported while a host is down:\n%s", s.log)
	}
	s.reconfigure(func(c *config.Database) { c.Hosts = "" })
	dbtest.Eventually(t, "its end is logged", func() bool { return s.log.Count("level=INFO", "are one database again") > 0 })
	if n := s.log.Count("level=ERROR", problem); n != 1 {
		t.Errorf("%d lines say so:\n%s", n, s.log)
	}
}
