package report

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ddtb/db/logtest"
)

// In these tests time is the bubble's: it passes when everybody waits.

func TestTwoHundredFailuresAreOneMailAndThenOneWithTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out console
		r := open(t, Options{Mail: mailTo("console"), Console: &out})
		concurrently(200, func(int) { r.Report(busy("/polls/")) })
		pass(gather)
		synctest.Wait()
		equal(t, "at once", strings.Join(out.subjects(), "; "), "[ddtb] pool timeout on /polls/ (web1)")
		pass(9 * time.Minute)
		equal(t, "mails within the window", len(out.subjects()), 1)
		pass(2 * time.Minute)
		equal(t, "with the window's end", strings.Join(out.subjects()[1:], "; "), "[ddtb] pool timeout on /polls/: 199 more (web1)")
		contains(t, "the second mail", out.String(), "199 more requests failed since the last mail about it")
		pass(time.Hour)
		equal(t, "mails in all", len(out.subjects()), 2)
	})
}

func TestTheEndOfAnOutageIsToldOnceWithItsDurationAndNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out console
		r := open(t, Options{Mail: mailTo("console"), Console: &out})
		r.Healthy() // without an outage: nothing
		for range 61 {
			concurrently(3, func(int) { r.Report(busy("/polls/")) })
			pass(time.Second)
		}
		for range 20 {
			r.Healthy()
			pass(time.Second)
		}
		equal(t, "mails", strings.Join(out.subjects(), "; "),
			"[ddtb] pool timeout on /polls/ (web1); [ddtb] Recovered: connections again after 1m, 183 requests failed (web1)")
		contains(t, "the recovery", out.String(), "The outage lasted 1m:", "pool timeout: 183 requests", "no restart is needed")
		pass(time.Hour)
		equal(t, "mails in all: the recovery told of the rest", len(out.subjects()), 2)
		equal(t, "still wants to know of successes", r.keeper.open.Load(), false)
	})
}

func TestABugHasNoRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out console
		r := open(t, Options{Mail: mailTo("console"), Console: &out})
		r.Report(bug(1))
		for range 20 {
			pass(time.Second)
			r.Healthy()
		}
		equal(t, "mails", strings.Join(out.subjects(), "; "), "[ddtb] internal error on /polls/:id/ (web1)")
	})
}

func TestTheCapHoldsAndLaterTellsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out console
		m := mailTo("console")
		m.Limit.PerHour = 3
		r := open(t, Options{Mail: m, Console: &out})
		for i := range 5 {
			r.Report(bug(i))
			pass(time.Minute)
		}
		equal(t, "mails before the cap", len(out.subjects()), 3)
		contains(t, "the last of them", out.String(), "The cap on mails an hour is reached with this one")
		pass(time.Hour)
		equal(t, "mails after an hour", len(out.subjects()), 5)
		contains(t, "a late one", out.String(), "This mail comes late")
	})
}

func TestManyKindsStayBoundedAndAreAllCounted(t *testing.T) {
	const kinds, goroutines = 100_000, 8
	var out console
	r := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: t.TempDir()})
	long := errors.New(strings.Repeat("x", 100_000))
	before := heap()
	concurrently(goroutines, func(g int) {
		for i := range kinds / goroutines {
			in := bug(g*kinds + i)
			in.Err = long
			r.Report(in)
		}
	})
	if grown := heap() - before; grown > 20<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
	shut(t, r)
	l := r.keeper.state.ledger
	untold := 0
	for _, m := range l.Marks {
		untold += m.Untold
	}
	if n := len(l.Marks); n < maxKinds || n > maxKinds+1 {
		t.Errorf("%d kinds are told apart", n)
	}
	equal(t, "told and untold failures", untold+len(out.subjects()), kinds)
	equal(t, "mails", len(out.subjects()), 20)
	if s, err := os.Stat(r.keeper.state.file); err != nil || s.Size() > 2<<20 || s.Mode().Perm() != 0o600 {
		t.Errorf("the state file: %v, %v", s, err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestANilReporterAndOneThatIsOffTellNothing(t *testing.T) {
	var none *Reporter
	none.Report(busy("/"))
	none.Healthy()
	_, finish := none.StartRequest(t.Context(), "GET", "/")
	finish(200)
	if err := none.Close(t.Context()); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	off := open(t, Options{Mail: mailTo("none"), StateDir: dir})
	off.Report(busy("/"))
	off.Healthy()
	shut(t, off)
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("wrote %v, %v", files, err)
	}
}

func TestTwoReportersShareTheLimitAndTheCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var out console
		a := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
		b := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
		concurrently(100, func(int) { a.Report(busy("/polls/")); b.Report(busy("/polls/")) })
		pass(11 * time.Minute)
		equal(t, "mails", strings.Join(out.subjects(), "; "),
			"[ddtb] pool timeout on /polls/ (web1); [ddtb] pool timeout on /polls/: 199 more (web1)")
		// One of them is served again, the other still fails: no end yet.
		a.Healthy()
		pass(2 * time.Second)
		b.Report(busy("/polls/"))
		pass(time.Minute)
		equal(t, "mails while one fails", len(out.subjects()), 2)
		b.Healthy()
		pass(time.Minute)
		contains(t, "the end", strings.Join(out.subjects()[2:], "; "), "Recovered", "201 requests failed")
		equal(t, "mails in all", len(out.subjects()), 3)
	})
}

func TestWhatAProcessDidNotTellTheNextOneTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var out console
		first := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
		concurrently(50, func(int) { first.Report(busy("/polls/")) })
		shut(t, first)
		open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
		pass(11 * time.Minute)
		equal(t, "mails", strings.Join(out.subjects(), "; "),
			"[ddtb] pool timeout on /polls/ (web1); [ddtb] pool timeout on /polls/: 49 more (web1)")
		contains(t, "the second mail, by who has seen no failure", out.String(), "couldn't get a connection after 10.00 sec")
	})
}

func TestADamagedStateFileIsWrittenAnew(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "no JSON": "{", "another shape": `[1]`, "null": "null", "null parts": `{"marks":{"x":null},"told":null,"outage":{}}`,
		"wrong types": `{"marks":{"x":{"untold":"many"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, stateName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var out console
			r := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
			concurrently(10, func(int) { r.Report(busy("/polls/")) })
			shut(t, r)
			equal(t, "mails", len(out.subjects()), 1)
			s := newState(dir)
			if err := s.load(); err != nil {
				t.Fatal(err)
			}
			equal(t, "untold", s.ledger.Marks[firstKey(s.ledger)].Untold, 9)
		})
	}
}

func firstKey(l ledger) string {
	for k := range l.Marks {
		return k
	}
	return ""
}

func TestWithoutItsFolderEachProcessHasItsOwnLimit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out console
	var log logtest.Log
	r := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: file, Log: logTo(&log)})
	concurrently(10, func(int) { r.Report(busy("/polls/")) })
	shut(t, r)
	equal(t, "mails", len(out.subjects()), 1)
	contains(t, "the log", log.String(), "not shared with other processes", "nobody was told", "count=9")
}

func TestALockThatIsNeverReleasedHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	unlock, err := newState(dir).lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	var out console
	var log logtest.Log
	r := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir, Log: logTo(&log)})
	r.Report(busy("/polls/"))
	eventually(t, "the mail", func() bool { return len(out.subjects()) == 1 })
	contains(t, "the log", log.String(), "can't lock the state file")
}

func TestCloseTellsWhatWasReportedJustBefore(t *testing.T) {
	var out console
	r := open(t, Options{Mail: mailTo("console"), Console: &out})
	r.Report(busy("/polls/"))
	shut(t, r)
	shut(t, r)
	equal(t, "mails", len(out.subjects()), 1)
	r.Report(busy("/polls/")) // no panic
	r.Healthy()
}

func TestCloseReturnsThoughTheConsoleTakesNothing(t *testing.T) {
	stuck := make(blocked)
	r, err := New(Options{Mail: mailTo("console"), Console: stuck, Log: quiet(t)})
	if err != nil {
		t.Fatal(err)
	}
	r.Report(busy("/polls/"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); err == nil || !strings.Contains(err.Error(), "mails were not sent") {
		t.Errorf("got %v", err)
	}
	close(stuck)
	<-r.courier.done
}

type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) { <-b; return len(p), nil }

func concurrently(n int, do func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

func BenchmarkReport(b *testing.B) {
	var out console
	r := open(b, Options{Mail: mailTo("console"), Console: &out})
	in := busy("/polls/")
	in.Origin, in.Stack = "", Callers(0)
	b.Run("of a known kind", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Report(in)
		}
	})
	b.Run("in parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r.Report(in)
			}
		})
	})
	b.Run("of a new kind each", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			in := in
			in.Request.Route = fmt.Sprint(i)
			r.Report(in)
		}
	})
}

func BenchmarkHealthyWithoutAnOutage(b *testing.B) {
	var out console
	r := open(b, Options{Mail: mailTo("console"), Console: &out})
	for b.Loop() {
		r.Healthy()
	}
}

func TestTheStatTellsWhatBecameOfTheFailures(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	var out console
	m := mailTo("console")
	m.Limit.Window = 2 * gather
	r := open(t, Options{Mail: m, Sentry: cfg, Console: &out})
	concurrently(200, func(int) { r.Report(busy("/polls/")) })
	eventually(t, "both mails", func() bool { return r.Stat().MailsSent == 2 })
	shut(t, r)
	equal(t, "the stat", r.Stat(), Stat{MailsSent: 2, Events: 2, Suppressed: 199})
	equal(t, "mails", len(out.subjects()), 2)
	equal(t, "events", len(sink.Items("event")), 2)
	var off *Reporter
	equal(t, "that of none", off.Stat(), Stat{})
}
