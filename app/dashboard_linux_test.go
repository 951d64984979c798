package app_test

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

// BenchmarkDashboard measures the processor time of one reading of a server with 60 sessions, from the query to the
// bytes at the last viewer. It includes this process, with the viewers, and the backend. The share of one core is for
// the default interval. The goal is less than 1 %.
func BenchmarkDashboard(b *testing.B) {
	for _, viewers := range []int{0, 1, 50} {
		b.Run(fmt.Sprintf("%d viewers", viewers), func(b *testing.B) { benchmarkDashboard(b, viewers) })
	}
}

func benchmarkDashboard(b *testing.B, viewers int) {
	cfg := dbtest.Config(b)
	s := boardOn(b, cfg, func(c *config.Config) { c.Monitor.Interval = 50 * time.Millisecond })
	for range 55 {
		c, err := pgx.Connect(b.Context(), fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s sslmode=%s application_name=crowd",
			cfg.Host, cfg.Port, cfg.Name, cfg.User, cfg.Password.Reveal(), cfg.SSLMode))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close(b.Context()) })
	}
	cookies := []string{s.login("ada")}
	for i := range viewers / 20 { // one user may watch in 20 windows
		name := fmt.Sprintf("ada%d", i)
		if _, err := s.accounts().CreateSuperuser(b.Context(), name, "", testPassword, false); err != nil {
			b.Fatal(err)
		}
		cookies = append(cookies, s.login(name))
	}
	for i := range viewers {
		v := s.watch(cookies[i%len(cookies)])
		v.mustNext()
		go func() { _, _ = io.Copy(io.Discard, v.in) }()
	}
	var r activity.Reading
	next := func() {
		var err error
		if r, err = s.Sampler().Next(b.Context(), r); err != nil || r.Err != nil {
			b.Fatal(err, r.Err)
		}
	}
	next()
	ours, theirs := processTime(b), backendTime(b, r)
	n := 0
	for b.Loop() {
		next()
		n++
	}
	ours, theirs = (processTime(b)-ours)/time.Duration(n), (backendTime(b, r)-theirs)/time.Duration(n)
	interval := config.Default().Monitor.Interval
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours.Microseconds()), "µs/look")
	b.ReportMetric(float64(theirs.Microseconds()), "backend-µs/look")
	b.ReportMetric(100*ours.Seconds()/interval.Seconds(), "%core")
	b.ReportMetric(100*theirs.Seconds()/interval.Seconds(), "backend-%core")
}

// processTime returns this process's processor time.
func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// backendTime returns the processor time of the backend, in steps of 10 ms.
func backendTime(b *testing.B, r activity.Reading) time.Duration {
	for _, x := range r.Snapshot.Sessions {
		if !x.Self {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", x.PID))
		if err != nil {
			b.Fatal(err)
		}
		_, after, _ := strings.Cut(string(stat), ") ") // the name before it may hold anything
		fields := strings.Fields(after)
		user, err1 := strconv.Atoi(fields[11])
		system, err2 := strconv.Atoi(fields[12])
		if err1 != nil || err2 != nil {
			b.Fatal(err1, err2)
		}
		return time.Duration(user+system) * 10 * time.Millisecond
	}
	b.Fatal("the reading does not hold the session that looked")
	return 0
}
