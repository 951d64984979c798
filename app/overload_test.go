package app_test

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter" // measured, and found to be worth no place in the application
	"github.com/labstack/echo/v4"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// BenchmarkOverload measures pages under twice the load that can be served: a page of one query of 20 ms, one of two,
// and a slow one of 200 ms, on a pool of 4, so that the database is the bottleneck. Requests arrive at random (a
// Poisson process), regardless of responses. It prints for each way to refuse the excess:
//
//	of-peak      served per second, relative to the peak, which a closed loop measures: the goal is 0.9
//	p50, p99     of the served requests, from the moment they were sent: the goal is within the pool's timeout of 1 s
//	full/s       refused at once
//	late/s       refused after waiting for the whole timeout
//	early-%      refused afterwards, at nine tenths of the peak, where none need be
//
// Measured on two cores:
//
//	                 one query         two queries       a slow query
//	                 of-peak  p99      of-peak  p99      of-peak  p99      late/s of the three
//	by its pace        1.01  0.40 s      1.01  0.76 s      1.02  0.56 s      0,  0,  0
//
// and before the queue knew its pace (see db's queue.refuses), with other work beside it:
//
//	no bound           1.00  1.04 s      0.72  2.04 s      0.99  1.23 s    136, 62, 20
//	max_waiting=100    1.05  0.61 s      1.02  1.07 s      0.99  1.20 s      0,  0, 15
//	max_waiting=10     0.86  0.30 s      0.89  0.29 s      0.99  0.79 s      0,  0,  0
//	adaptive           1.01  0.14 s      1.03  0.24 s      0.99  1.15 s      0,  0,  0
//
// Without a limit, half of the pages of two queries waited twice and were refused at the second: their first query was
// wasted. No constant suits both a page of 20 ms and one of 200: the number served within the timeout is size × timeout
// ÷ service time, by Little's law, and the queue can observe the service time.
//
// failsafe-go's adaptive limiter is not used for the pages. It begins at 20 and reached at most 24 in the twelve
// seconds of a run: it has the effect of max_waiting = 16. It does not take the timeout into account (the slow page),
// needs an instance per page because it compares durations, and refuses before it is known whether a connection is
// needed.
func BenchmarkOverload(b *testing.B) {
	for _, page := range overloadPages {
		for _, way := range ways {
			b.Run(page.path[1:]+"/"+way.name, func(b *testing.B) { overload(b, page.path, way) })
		}
	}
}

const (
	overloadSize    = 4
	overloadTimeout = time.Second
)

var overloadPages = []struct {
	path    string
	queries int
	sql     string
}{
	{"/one", 1, "SELECT pg_sleep(0.02)"},
	{"/two", 2, "SELECT pg_sleep(0.02)"},
	{"/slow", 1, "SELECT pg_sleep(0.2)"},
}

// way is the way to refuse the excess: by the pool's max_waiting, or by a limiter before the page.
type way struct {
	name       string
	maxWaiting int
	limiter    func() adaptivelimiter.AdaptiveLimiter[any] // nil: none
}

var ways = []way{
	{name: "by its pace"},
	{name: "max_waiting=10", maxWaiting: 10},
	{name: "adaptive", limiter: adaptivelimiter.NewWithDefaults[any]},
}

func overload(b *testing.B, page string, w way) {
	s := siteOn(b, dbtest.Config(b), func(c *config.Config) {
		setDatabase(c, func(d *config.Database) {
			pool(d)
			d.Pool.MaxSize, d.Pool.MinSize, d.Pool.Timeout, d.Pool.MaxWaiting = overloadSize, overloadSize, overloadTimeout, w.maxWaiting
		})
	})
	for _, p := range overloadPages {
		s.AddPage(p.path, limited(w, func(c echo.Context) error {
			for range p.queries {
				if _, err := s.DB().Exec(c.Request().Context(), p.sql); err != nil {
					return err
				}
			}
			return c.String(http.StatusOK, "done\n")
		}))
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}
	defer client.CloseIdleConnections()
	ask := func() db.Cause { return askOnce(b, client, s.url+page) }
	for b.Loop() {
		peak := closedLoop(ask, 2*overloadSize, 2*time.Second)
		over := openLoop(ask, 2*peak, 6*time.Second)
		early := openLoop(ask, 0.9*peak, 4*time.Second)
		peak = max(peak, closedLoop(ask, 2*overloadSize, 2*time.Second)) // whatever else ran on the machine
		b.ReportMetric(peak, "peak/s")
		b.ReportMetric(over.servedPerSecond()/peak, "of-peak")
		b.ReportMetric(over.quantile(0.5), "p50-ms")
		b.ReportMetric(over.quantile(0.99), "p99-ms")
		b.ReportMetric(over.quantile(1), "max-ms")
		b.ReportMetric(over.refusedPerSecond(db.QueueFull), "full/s")
		b.ReportMetric(over.refusedPerSecond(db.PoolTimeout), "late/s")
		b.ReportMetric(100*early.share(func(o outcome) bool { return o.cause != "" }), "early-%")
		b.ReportMetric(0, "ns/op")
	}
}

// limited puts the way's limiter, if any, before the page.
func limited(w way, page echo.HandlerFunc) echo.HandlerFunc {
	if w.limiter == nil {
		return page
	}
	limiter := w.limiter()
	return func(c echo.Context) error {
		permit, ok := limiter.TryAcquirePermit()
		if !ok {
			return &db.ConnError{Cause: db.QueueFull}
		}
		if err := page(c); err != nil {
			permit.Drop()
			return err
		}
		permit.Record()
		return nil
	}
}

// askOnce sends one request, and returns the cause of a refusal.
func askOnce(b *testing.B, client *http.Client, url string) db.Cause {
	req, err := http.NewRequestWithContext(context.WithoutCancel(b.Context()), http.MethodGet, url, nil)
	if err != nil {
		b.Error(err)
		return ""
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		b.Error(err)
		return db.ServerUnavailable
	}
	defer func() { _ = resp.Body.Close() }()
	var problem struct{ Cause db.Cause }
	if resp.StatusCode == http.StatusOK {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(&problem)
	}
	if err != nil {
		b.Error(err)
	}
	return problem.Cause
}

// closedLoop runs clients that send a request after each response, and returns the number served per second.
func closedLoop(ask func() db.Cause, clients int, d time.Duration) float64 {
	began := time.Now()
	served := make([]int, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for time.Since(began) < d {
				if ask() == "" {
					served[i]++
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range served {
		sum += n
	}
	return float64(sum) / time.Since(began).Seconds()
}

// outcome is the result of a request.
type outcome struct {
	sent, ended time.Time
	cause       db.Cause // "": served
}

// run is the results of a loop after its first quarter, in which the queue fills.
type run struct {
	outcomes []outcome
	length   time.Duration
}

// openLoop sends perSecond requests per second on average, regardless of responses.
func openLoop(ask func() db.Cause, perSecond float64, d time.Duration) run {
	var (
		mu  sync.Mutex
		all []outcome
		wg  sync.WaitGroup
	)
	began := time.Now()
	for at := began; at.Sub(began) < d; at = at.Add(time.Duration(rand.ExpFloat64() / perSecond * float64(time.Second))) {
		<-time.After(time.Until(at)) // a late response does not delay it
		wg.Go(func() {
			cause := ask()
			mu.Lock()
			defer mu.Unlock()
			all = append(all, outcome{at, time.Now(), cause})
		})
	}
	wg.Wait()
	from, to := began.Add(d/4), began.Add(d)
	return run{slices.DeleteFunc(all, func(o outcome) bool { return o.ended.Before(from) || o.ended.After(to) }), to.Sub(from)}
}

func (r run) share(is func(outcome) bool) float64 {
	n := 0
	for _, o := range r.outcomes {
		if is(o) {
			n++
		}
	}
	return float64(n) / float64(max(1, len(r.outcomes)))
}

func (r run) perSecond(cause db.Cause) float64 {
	return r.share(func(o outcome) bool { return o.cause == cause }) * float64(len(r.outcomes)) / r.length.Seconds()
}

func (r run) servedPerSecond() float64                { return r.perSecond("") }
func (r run) refusedPerSecond(cause db.Cause) float64 { return r.perSecond(cause) }

// quantile is of the served requests' durations, in milliseconds.
func (r run) quantile(q float64) float64 {
	var took []time.Duration
	for _, o := range r.outcomes {
		if o.cause == "" {
			took = append(took, o.ended.Sub(o.sent))
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
}
