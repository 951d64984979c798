package app_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// BenchmarkRefusedCPU measures the processor time of a page that is refused at once, relative to one that is served: to
// that of the application and PostgreSQL, and to that of the application alone. The goal of the first is 0.25 for each
// cause. constant-of-served is what net/http takes for the same response and the same limits of time, if it is a constant.
func BenchmarkRefusedCPU(b *testing.B) {
	served := siteOn(b, dbtest.Config(b), func(c *config.Config) { setDatabase(c, pool) })
	served.loadDemo()
	barred := dbtest.Config(b)
	if _, err := dbtest.Control(b, barred).Exec(b.Context(), "ALTER ROLE "+barred.User+" CONNECTION LIMIT 0"); err != nil {
		b.Fatal(err)
	}
	cases := []struct {
		cause   db.Cause
		site    *site
		prepare func(*site) (end func())
	}{
		{db.CircuitOpen, siteOn(b, nobodyListens(b), nil), func(s *site) func() {
			dbtest.Eventually(b, "the circuit is open", func() bool { return strings.Contains(s.get("/polls/").body, string(db.CircuitOpen)) })
			return func() {}
		}},
		{db.QueueFull, siteOn(b, dbtest.Config(b), func(c *config.Config) {
			setDatabase(c, func(d *config.Database) {
				pool(d)
				d.Pool.MaxSize, d.Pool.MaxWaiting, d.Pool.Timeout = 1, 1, 10*time.Minute
			})
		}), func(s *site) func() {
			lease, err := s.DB().Acquire(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			waiter := s.atOnce(1)
			dbtest.Eventually(b, "the queue is full", func() bool { return s.DB().Stat().Waiting == 1 })
			return func() { lease.Release(); <-waiter }
		}},
		{db.SlotsExhausted, siteOn(b, barred, func(c *config.Config) { setDatabase(c, pool) }), func(s *site) func() {
			dbtest.Eventually(b, "no slot is left", func() bool { return strings.Contains(s.get("/polls/").body, string(db.SlotsExhausted)) })
			return func() {}
		}},
	}
	database := dbtest.Control(b, dbtest.Config(b))
	for _, c := range cases {
		b.Run(string(c.cause), func(b *testing.B) {
			defer c.prepare(c.site)()
			same := constant(b, c.site.get("/polls/", "Accept", "text/html"))
			var refused, fixed, application, server time.Duration
			for b.Loop() {
				refused += cpuOf(func() { askByAB(b, c.site.url+"/polls/", pagesOfAB) })
				fixed += cpuOf(func() { askByAB(b, same+"/", pagesOfAB) })
				before := cpuOfBackends(b, database)
				application += cpuOf(func() { askByAB(b, served.url+"/polls/", 0) })
				server += cpuOfBackends(b, database) - before
			}
			b.ReportMetric(refused.Seconds()/(application+server).Seconds(), "of-served")
			b.ReportMetric(refused.Seconds()/application.Seconds(), "of-served-without-postgres")
			b.ReportMetric(fixed.Seconds()/(application+server).Seconds(), "constant-of-served")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// constant serves an answer that was given before, and returns where.
func constant(b *testing.B, a answer) (url string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), a.Header)
		w.WriteHeader(a.StatusCode)
		_, _ = io.WriteString(w, a.body)
	}))
	s.Config.ReadHeaderTimeout, s.Config.ReadTimeout, s.Config.WriteTimeout = 10*time.Second, 30*time.Second, 3*time.Minute
	s.Config.IdleTimeout = 2 * time.Minute
	s.Start()
	b.Cleanup(s.Close)
	return s.URL
}

// pagesOfAB is how many pages ab asks for: the clock of a process's time is coarse.
const pagesOfAB = 2000

var refusedByAB = regexp.MustCompile(`Non-2xx responses: +(\d+)`)

// askByAB has ab, whose processor time is not ours, ask eight at a time, over connections that it keeps. refused is how many
// pages must be refused.
func askByAB(b *testing.B, url string, refused int) {
	out, err := exec.CommandContext(b.Context(), "ab", "-q", "-k", "-n", strconv.Itoa(pagesOfAB), "-c", "8", "-H", "Accept: text/html", url).CombinedOutput()
	if err != nil {
		b.Fatalf("ab, of Debian's apache2-utils: %v\n%s", err, out)
	}
	n := "0"
	if line := refusedByAB.FindSubmatch(out); line != nil {
		n = string(line[1])
	}
	if n != strconv.Itoa(refused) {
		b.Fatalf("not %d of %d pages are refused:\n%s", refused, pagesOfAB, out)
	}
}

// cpuOf returns the processor time of this process while do runs.
func cpuOf(do func()) time.Duration {
	used := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // can't fail for oneself
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	do()
	return used() - before
}

// cpuOfBackends returns the processor time of the server's backends since they began. It lacks that of failed logins: about
// one in 100 ms while no slot is left.
func cpuOfBackends(b *testing.B, superuser *pgx.Conn) (used time.Duration) {
	if err := superuser.QueryRow(b.Context(), `SELECT sum(split_part(pg_read_file('/proc/' || pid || '/schedstat', 0, 100, true), ' ', 1)::bigint)
		FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&used); err != nil {
		b.Fatal(err)
	}
	return used
}
