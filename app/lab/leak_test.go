package lab_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/app/lab"
	"ddtb/config"
	"ddtb/db/dbtest"
)

func TestLeakedLeasesAreShownWithTheirLineAndFailTheNextRun(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	leak := answer[lab.Leak](s, "/test/connection-leak")
	if leak.Test != "connection-leak" || leak.Strategy != "pool" || leak.Count != 3 || leak.Reclaim != "30s" ||
		len(leak.Attempts) != 3 || len(leak.Errors) != 0 || len(leak.Leaked) != 3 {
		t.Fatalf("%+v", leak)
	}
	for i, h := range leak.Leaked {
		if h.BackendPID == 0 || !strings.HasPrefix(h.Where, "leak.go:") || !strings.HasSuffix(h.Where, "lab.(*Lab).leak") || h.AgeSeconds < 0 {
			t.Errorf("holder %d: %+v", i, h)
		}
		if !strings.Contains(leak.Attempts[i], "OK - leaked a connection after 0.") {
			t.Errorf("%q", leak.Attempts[i])
		}
	}
	run := answer[lab.Stress](s, "/test/pool-stress?threads=15&timeout=100ms&hold=0")
	s.mustSplit(run, 0)
	if run.PeakConnections != 3 {
		t.Errorf("the server counted %d", run.PeakConnections)
	}
	more := answer[lab.Leak](s, "/test/connection-leak?count=2&timeout=100ms")
	if len(more.Attempts) != 0 || len(more.Errors) != 1 || !strings.Contains(more.Errors[0], "couldn't get a connection after") || len(more.Leaked) != 3 {
		t.Errorf("%+v", more)
	}
	s.lab.Close()
	s.mustBeIdle()
	s.mustSplit(answer[lab.Stress](s, "/test/pool-stress?threads=3"), 3)
}

func TestLeakedLeasesComeBackByThemselves(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*config.Database){"pool": nil, "per-request": perRequest, "persistent": persistent} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, set)
			if leak := answer[lab.Leak](s, "/test/connection-leak?count=3&reclaim=300ms"); len(leak.Attempts) != 3 {
				t.Fatalf("%+v", leak)
			}
			s.mustBeIdle()
			dbtest.Eventually(t, "their backends are gone", func() bool { return s.backends(false, s.db.Config().Strategy) == 0 })
			s.mustSplit(answer[lab.Stress](s, "/test/pool-stress?threads=3"), 3)
		})
	}
}

func TestNoMoreLeasesAreLeakedThanMaxThreadsAllows(t *testing.T) {
	t.Parallel()
	s := newSite(t, perRequest) // which has no bound itself
	few := limits
	few.MaxThreads = 6
	s.lab.Configure(few)
	var crowd sync.WaitGroup
	for range 6 {
		crowd.Go(func() {
			if _, _, err := s.send(t.Context(), "/test/connection-leak?count=4&reclaim=50s&timeout=30s"); err != nil {
				t.Error(err)
			}
		})
	}
	crowd.Wait()
	if n := s.db.Stat().Leases; n != few.MaxThreads {
		t.Errorf("%d are leaked, want %d", n, few.MaxThreads)
	}
	s.mustSay(409, "/test/connection-leak?count=1", "6 leases are leaked already", "They come back by themselves")
	s.lab.Close()
	s.mustBeIdle()
	if status, _ := s.get("/test/connection-leak?count=1&reclaim=1ms"); status != http.StatusOK {
		t.Errorf("when all are back: %d", status)
	}
}

func TestWhatWasLeakedBeforeTheLimitIsListed(t *testing.T) {
	t.Parallel()
	s := newSite(t, perRequest)
	few := limits
	few.MaxThreads = 5
	s.lab.Configure(few)
	answer[lab.Leak](s, "/test/connection-leak?count=3")
	more := answer[lab.Leak](s, "/test/connection-leak?count=3")
	if len(more.Attempts) != 2 || len(more.Leaked) != 5 || len(more.Errors) != 1 || !strings.Contains(more.Errors[0], "5 leases are leaked already") {
		t.Errorf("%+v", more)
	}
}

func TestCloseTakesBackWhatWasLeakedAndMayBeCalledTwice(t *testing.T) {
	s := newSite(t, nil)
	dbtest.NoLeaks(t)
	answer[lab.Leak](s, "/test/connection-leak?count=3&reclaim=50s")
	s.lab.Close()
	s.lab.Close()
	if st := s.db.Stat(); st.Leases != 0 {
		t.Errorf("%+v", st)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestASecondTakeBackOfALeaseThatIsBackDoesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	answer[lab.Leak](s, "/test/connection-leak?count=3&reclaim=200ms")
	deadline := time.After(20 * time.Second)
	for s.db.Stat().Leases > 0 { // Close races with the timers on purpose
		s.lab.Close()
		select {
		case <-deadline:
			t.Fatal("they never come back")
		default:
		}
	}
	s.mustSplit(answer[lab.Stress](s, "/test/pool-stress?threads=3"), 3)
}
