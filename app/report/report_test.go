package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// These tests use the bubble's time: it advances when every goroutine waits.

func TestTwoHundredFailuresAreOneMailAndThenOneWithTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out console
		r := open(t, Options{Mail: mailTo("console"), Console: &out})
		concurrently(200, func(int) { r.Report(busy("/polls/")) })
		synctest.Wait()
		equal(t, "at once", strings.Join(out.subjects(), "; "), "[ddtb] pool timeout on /polls/ (web1)")
		pass(9 * time.Minute)
		equal(t, "mails within the window", len(out.subjects()), 1)
		pass(2 * time.Minute)
		equal(t, "with the window's end", strings.Join(out.subjects()[1:], "; "), "[ddtb] pool timeout: 199 more (web1)")
		contains(t, "the second mail", out.String(), "199 requests failed since the last mail about it")
		pass(time.Hour)
		equal(t, "mails in all", len(out.subjects()), 2)
	})
}

func TestTheEndOfAnOutageIsReportedOnceWithItsDurationAndNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out console
		r := open(t, Options{Mail: mailTo("console"), Console: &out})
		r.Healthy() // without an outage: nothing
		for range 61 {
			concurrently(3, func(int) { r.Report(busy("/polls/")) })
			pass(time.Second)
		}
		pass(time.Minute) // without a visitor
		for range 20 {
			r.Healthy()
			pass(time.Second)
		}
		equal(t, "mails", strings.Join(out.subjects(), "; "),
			"[ddtb] pool timeout on /polls/ (web1); [ddtb] Recovered: connections again after 2m1s, 183 requests failed (web1)")
		contains(t, "the recovery", out.String(), "The outage lasted 2m1s at most:", "by cause: pool timeout: 183.", "no restart is needed")
		pass(time.Hour)
		equal(t, "mails in all: the recovery counts the rest", len(out.subjects()), 2)
		equal(t, "still wants to know of successes", r.open.Load(), false)
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
		equal(t, "mails", strings.Join(out.subjects(), "; "), "[ddtb] internal error on /polls/1/ (web1)")
	})
}

func TestTheCapHoldsAndLaterReportsTheRest(t *testing.T) {
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
		contains(t, "the last of them", out.String(), "The cap on mails per hour is reached with this one")
		pass(time.Hour)
		equal(t, "mails after an hour", len(out.subjects()), 5)
	})
}

func TestAFloodOfManyKindsStaysBoundedAndIsAllCounted(t *testing.T) {
	const kinds, goroutines = 100_000, 8
	var out console
	dir := t.TempDir()
	r := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
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
	pending := int(r.dropped.Load())
	for _, g := range r.state.Groups {
		pending += g.Pending
	}
	for _, m := range regexp.MustCompile(`Besides, (\d+) requests? failed so fast`).FindAllStringSubmatch(out.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		pending += n
	}
	equal(t, "pending, dropped and reported failures", pending+len(out.subjects()), kinds)
	equal(t, "mails", len(out.subjects()), 20)
	if n := len(r.state.Groups); n > maxGroups+1 {
		t.Errorf("%d groups", n)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestANilReporterAndOneThatIsOffDoNothing(t *testing.T) {
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

func TestCloseSendsWhatWasReportedJustBefore(t *testing.T) {
	var out console
	r := open(t, Options{Mail: mailTo("console"), Console: &out})
	r.Report(busy("/polls/"))
	shut(t, r)
	shut(t, r)
	equal(t, "mails", len(out.subjects()), 1)
	r.Report(busy("/polls/")) // no panic
	r.Healthy()
}

func TestCloseReturnsInTimeThoughTheConsoleTakesNothing(t *testing.T) {
	stuck := make(blocked)
	r, err := New(Options{Mail: mailTo("console"), Console: stuck, Log: logTo(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	r.Report(busy("/polls/"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := r.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 mail was not sent") {
		t.Errorf("got %v", err)
	}
	if ctx.Err() != nil {
		t.Error("it took longer than it may")
	}
	close(stuck)
}

func TestCloseReturnsAtOnceWhenItsTimeIsOverAlready(t *testing.T) {
	stuck := make(blocked)
	r, err := New(Options{Mail: mailTo("console"), Console: stuck, Log: logTo(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	r.Report(busy("/polls/"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(stuck)
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

func TestTheStatCountsWhatBecameOfTheFailures(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	var out console
	m := mailTo("console")
	m.Limit.Window = time.Second
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

func TestAFullQueueDropsAndTheNextMailCountsThem(t *testing.T) {
	var out console
	r := newReporter(Options{Mail: mailTo("console"), Hostname: "web1", Log: quiet(t)})
	r.send, r.queue = func(_ context.Context, m *mail) error { return m.print(&out) }, make(chan *failure, 2)
	for range 5 { // not counted yet
		r.Report(bug(1))
	}
	go func() { r.done <- r.run() }()
	shut(t, r)
	contains(t, "the mail", out.String(), "Besides, 3 requests failed so fast that they could not be counted")
	equal(t, "suppressed", r.Stat().Suppressed, 4)
}
