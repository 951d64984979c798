package lab_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ddtb/app/lab"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// mustSplit checks a run in which so many threads succeeded.
func (s *site) mustSplit(run lab.Stress, succeeded int) {
	s.Helper()
	if run.Successes != succeeded || run.Failures != run.Threads-succeeded ||
		len(run.Results) != run.Successes || len(run.Errors) != run.Failures {
		s.Errorf("%d of %d threads succeeded, %d failed; want %d:\n%s\n%s", run.Successes, run.Threads, run.Failures, succeeded,
			strings.Join(run.Results, "\n"), strings.Join(run.Errors, "\n"))
	}
}

var (
	okLine     = regexp.MustCompile(`^Thread \d+: OK - got a connection after \d+\.\d\d sec$`)
	failedLine = regexp.MustCompile(`^Thread \d+: ERROR - couldn't get a connection after 1\.00 sec$`)
)

func TestExactlyThoseThreadsFailThatFindNoPlaceInThePool(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for name, path := range map[string]string{
		"on the live strategy":          "/test/pool-stress",
		"on a private instance":         "/test/pool-stress?threads=15&strategy=pool&max_size=3&timeout=1s",
		"on a private, unlike the live": "/test/pool-stress?threads=15&max_size=3&min_size=2&max_waiting=20&timeout=1",
	} {
		t.Run(name, func(t *testing.T) {
			run := answer[lab.Stress](s, path)
			s.in(t).mustSplit(run, 3)
			if run.PeakConnections != 3 || run.PeakError != "" {
				t.Errorf("the server counted %d: %s", run.PeakConnections, run.PeakError)
			}
			if run.Test != "pool-stress" || run.Strategy != "pool" || run.Threads != 15 || run.Hold != "1.1s" ||
				run.Settings["max_size"] != 3.0 || run.Settings["timeout"] != "1s" || run.Private != strings.Contains(path, "max_size") {
				t.Errorf("%+v", run)
			}
			for _, line := range run.Results {
				if !okLine.MatchString(line) {
					t.Errorf("%q", line)
				}
			}
			for _, line := range run.Errors {
				if !failedLine.MatchString(line) {
					t.Errorf("%q", line)
				}
			}
			if w := run.WaitsMS; w.P50 < 1000 || w.Max < w.P99 || w.P99 < w.P50 || run.DurationSeconds < 1.1 {
				t.Errorf("%+v in %v s", w, run.DurationSeconds)
			}
			s.mustBeIdle()
		})
	}
	if n := s.backends(true, "pool"); n != 0 {
		t.Errorf("%d backends of a private instance are left", n)
	}
}

func TestTheAnswerHasTheKeysThatAreDocumented(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	_, body := s.get("/test/pool-stress?threads=4&hold=0.3")
	var run map[string]any
	if err := json.Unmarshal([]byte(body), &run); err != nil {
		t.Fatal(err)
	}
	keys := slices.Sorted(maps.Keys(run))
	want := []string{
		"duration_seconds", "errors", "failures", "hold", "peak_connections", "private", "results", "settings",
		"strategy", "successes", "test", "threads", "waits_ms",
	}
	if !slices.Equal(keys, want) {
		t.Errorf("the keys are %q", keys)
	}
	if keys := slices.Sorted(maps.Keys(run["waits_ms"].(map[string]any))); !slices.Equal(keys, []string{"max", "p50", "p99"}) {
		t.Errorf("the keys of waits_ms are %q", keys)
	}
}

func TestEachStrategyRunsPrivatelyBesideTheApplication(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for query, succeed := range map[string]int{
		"strategy=per-request&max_size=4":                4,
		"strategy=per-request&hold=1s":                   10,
		"strategy=persistent&hold=1s":                    10,
		"strategy=persistent&max_size=4&timeout=1s":      4,
		"strategy=pool&max_size=4&max_waiting=2":         4,
		"strategy=pool&max_size=1&hold=10ms&timeout=10s": 10, // in turn, and all in time
	} {
		t.Run(query, func(t *testing.T) {
			path := "/test/pool-stress?threads=10&" + query
			if !strings.Contains(query, "timeout") && !strings.Contains(query, "hold") {
				path += "&timeout=1s"
			}
			run := answer[lab.Stress](s, path)
			s.in(t).mustSplit(run, succeed)
			if !run.Private || run.PeakError != "" || run.PeakConnections > succeed {
				t.Errorf("%+v", run)
			}
		})
	}
	if st := s.db.Stat(); st.Acquired != 0 || s.db.Config().Strategy != db.Pool {
		t.Errorf("the application was not left alone: %+v", st)
	}
}

func TestAStressRunOnTheLiveStrategyCountsItsBackendsOnTheServer(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*config.Database){"per-request": perRequest, "persistent": persistent} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, set)
			run := answer[lab.Stress](s, "/test/pool-stress?threads=12&hold=1s")
			s.mustSplit(run, 12)
			if run.PeakConnections != 12 {
				t.Errorf("the server counted %d, %s", run.PeakConnections, run.PeakError)
			}
			s.mustBeIdle()
		})
	}
}

func TestAFullQueueIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Database) { c.Pool.MaxWaiting = 5 })
	run := answer[lab.Stress](s, "/test/pool-stress?threads=15")
	s.mustSplit(run, 3)
	full := slices.DeleteFunc(slices.Clone(run.Errors), func(line string) bool {
		return !strings.HasSuffix(line, "ERROR - couldn't get a connection: 5 requests are waiting for one already")
	})
	if len(full) != 7 { // 15 - 3 that hold - 5 that wait
		t.Errorf("%d found the queue full:\n%s", len(full), strings.Join(run.Errors, "\n"))
	}
}

func TestAClientThatDisconnectsFreesEverythingAtOnce(t *testing.T) {
	s := newSite(t, func(c *config.Database) { c.Pool.Timeout = config.Default().Databases["default"].Pool.Timeout })
	dbtest.NoLeaks(t)
	for _, path := range []string{"/test/pool-stress?threads=15&hold=50s", "/test/pool-stress?threads=15&hold=50s&strategy=pool&max_size=3&timeout=50s"} {
		leave, done := s.background(path)
		dbtest.Eventually(t, "three hold", func() bool {
			return s.backends(false, "pool")+s.backends(true, "pool") >= 3
		})
		leave()
		<-done
		s.mustBeIdle()
		dbtest.Eventually(t, "the next run has its turn", func() bool {
			status, _ := s.get("/test/pool-stress?threads=3&hold=0")
			return status == http.StatusOK
		})
		dbtest.Eventually(t, "the private instance is gone", func() bool { return s.backends(true, "pool") == 0 })
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestOneStressRunAtATime(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Database) { c.Pool.MaxSize = 5 })
	leave, done := s.background("/test/pool-stress?threads=1&hold=50s")
	dbtest.Eventually(t, "the first runs", func() bool { return s.db.Stat().Leases == 1 })
	s.mustSay(409, "/test/pool-stress?threads=1&hold=0", "Another stress run is under way")
	s.mustSay(409, "/test/pool-stress?threads=1&hold=0&strategy=per-request", "Another stress run is under way")
	leave()
	<-done
	dbtest.Eventually(t, "the next has its turn", func() bool {
		status, _ := s.get("/test/pool-stress?threads=1&hold=0")
		return status == http.StatusOK
	})
}

func TestAServerWithoutFreeSlotsIsReportedWithItsSQLState(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: 10})
	s := siteOn(t, server.Config(t), perRequest)
	run := answer[lab.Stress](s, "/test/pool-stress?threads=20&hold=5s") // on a busy machine the last thread connects late
	if run.Failures == 0 || run.Successes == 0 || run.Successes > 10-3-1 {
		t.Errorf("%d succeeded, %d failed", run.Successes, run.Failures)
	}
	for _, line := range run.Errors {
		if !strings.Contains(line, "slots exhausted") || !strings.Contains(line, "SQLSTATE 53300") {
			t.Errorf("%q", line)
		}
	}
	if run.PeakConnections < 1 && run.PeakError == "" {
		t.Error("what the server counted is neither there nor excused")
	}
	s.mustBeIdle()
}
