package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

// TestHealthAndDoctorAskARunningServerAboutItsOwnLeases leaks the one lease of a pool that a server would lend its word
// for: PostgreSQL shows an idle session.
func TestHealthAndDoctorAskARunningServerAboutItsOwnLeases(t *testing.T) {
	o := newOperator(t)
	dry := o.lendsItsWord()
	if code, out, _ := o.runs("health"); code != 0 || !strings.Contains(out, "asked about its own leases") {
		t.Errorf("a server that is well: exit code %d\n%s", code, out)
	}
	defer dry()()
	var h activity.Health
	dbtest.Eventually(t, "health is critical", func() bool {
		code, out, _ := o.runs("health", "--json")
		return code == 2 && json.Unmarshal([]byte(out), &h) == nil && h.Findings[0].Code == activity.CodeStalled
	})
	if h.Level != activity.Critical || h.Processes != 1 ||
		!strings.Contains(h.Findings[0].What, "verdict_test.go") {
		t.Errorf("%+v", h)
	}
	code, out, _ := o.runs("doctor")
	for _, says := range []string{"and none came back for", "release the lease on every way out", "ddtb lab run rows-not-closed", "reclaim_after"} {
		if !strings.Contains(out, says) {
			t.Errorf("doctor, exit code %d, lacks %q:\n%s", code, says, out)
		}
	}
	if _, out, _ := o.runs("health"); !strings.HasPrefix(out, "CRITICAL  the one lease") {
		t.Errorf("the first line, for a monitoring system, is not about what is wrong:\n%s", out)
	}
}

// lendsItsWord is what a running server does beside serving. dry has its pool run dry, until the lease is released.
func (o *operator) lendsItsWord() (dry func() (release func())) {
	o.Helper()
	cfg := o.cfg
	cfg.Strategy, cfg.Pool.MaxSize, cfg.Pool.MinSize, cfg.Pool.Timeout = db.Pool, 1, 0, 2*time.Second
	d, err := db.Open(o.Context(), cfg)
	o.must(err)
	m := activity.StartProcessMonitor(d)
	observer, err := activity.NewObserver(cfg)
	o.must(err)
	observer.Process = m.Now
	dir, err := activity.SocketDir(o.runtime)
	o.must(err)
	ctx, stop := context.WithCancel(o.Context())
	ended := make(chan error, 1)
	go func() { ended <- observer.Share(ctx, dir) }()
	o.Cleanup(func() {
		stop()
		o.must(<-ended)
		m.Stop()
		observer.Close()
		o.must(d.Close(context.Background()))
	})
	cc, err := db.ConnConfig(cfg, "ddtb")
	o.must(err)
	dbtest.Eventually(o, "it answers", func() bool { return len(activity.AskProcesses(ctx, []string{dir}, cc)) == 1 })
	return func() func() {
		lease, err := d.Acquire(o.Context())
		o.must(err)
		m.Now() // sees it full
		if _, err := d.Acquire(o.Context()); db.CauseOf(err) != db.PoolTimeout {
			o.Fatal(err)
		}
		return lease.Release
	}
}
