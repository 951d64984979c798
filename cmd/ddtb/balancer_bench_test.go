package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/polls"
)

// BenchmarkAgent measures the benefit of HAProxy's agent-check with four unequal processes: one has half the pool of
// the others, and one has a slow link to the database. Requests arrive at an even rate that the four can serve together
// if each gets its share. Both modes are measured in one run, on the same processes. It prints for each:
//
//	failed-%    requests without status 200
//	p50, p99    of the others, from the moment each was due
//	of-without  the p99 relative to the p99 without the agent
//	small-%     share of the process with half the pool, whose capacity is 19 %
//	slow-%      share of the process with the slow link, whose capacity is 6 %
//
// Measured on two cores:
//
//	                 roundrobin                       leastconn
//	                 failed  p99     small  slow      failed  p99     small  slow
//	without          13.6 %  821 ms  25 %   25 %      0 %     129 ms  28 %   8 %
//	with the agent    0 %    128 ms  20 %    9 %      0 %     125 ms  20 %   6 %
//
// The slow link itself causes 120 ms of the p99. leastconn detects a slow process by itself, but not the size of a
// pool.
func BenchmarkAgent(b *testing.B) {
	cfg := dbtest.Config(b)
	loadPolls(b, cfg)
	fleet := unlike(b, cfg)
	for _, algorithm := range []string{"roundrobin", "leastconn"} {
		var without time.Duration // the p99
		for _, agents := range []bool{false, true} {
			b.Run(algorithm+"/"+way(agents), func(b *testing.B) {
				for b.Loop() {
					at := haproxy(b, balancing{algorithm, agents, time.Second}, fleet...)
					steady(at.url, benchRate, 8*time.Second) // until the weights have settled
					before := at.requests(fleet)
					m := steady(at.url, benchRate, benchTime)
					at.reportShares(b, fleet, before)
					at.stop()
					m.report(b)
					if !agents {
						without = m.quantile(0.99)
					} else if without > 0 {
						b.ReportMetric(float64(m.quantile(0.99))/float64(without), "of-without")
					}
				}
			})
		}
	}
}

func way(agents bool) string {
	if agents {
		return "with"
	}
	return "without"
}

const (
	benchPool = 4
	benchLink = 10 * time.Millisecond // in each direction, so that a lease lasts for 20 ms at least
	benchSlow = 60 * time.Millisecond
	benchRate = 300 // per second; the four can serve about 200 + 200 + 100 + 33
	benchTime = 12 * time.Second
)

// unlike starts the four processes: two alike, one with half the pool, one with a slow link.
func unlike(b *testing.B, cfg config.Database) (fleet []*replica) {
	b.Helper()
	_, near := newRelay(b, cfg, benchLink)
	_, far := newRelay(b, cfg, benchSlow)
	for _, r := range []struct {
		name string
		size int
		link config.Database
	}{{"one", benchPool, near}, {"two", benchPool, near}, {"small", benchPool / 2, near}, {"slow", benchPool, far}} {
		p := newReplica(b, r.name, r.link, fmt.Sprintf("pool.max_size = %d\npool.timeout = \"2s\"", r.size))
		p.start()
		fleet = append(fleet, p)
	}
	return fleet
}

func loadPolls(b *testing.B, cfg config.Database) {
	b.Helper()
	d, err := db.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := polls.NewStore(d).LoadDemo(b.Context(), time.Now()); err != nil {
		b.Fatal(err)
	}
	if err := d.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// measured is the results of the requests of a load.
type measured struct {
	failed int
	took   []time.Duration // of those with status 200
}

// steady sends perSecond requests per second, regardless of responses.
func steady(url string, perSecond int, d time.Duration) *measured {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()
	m := &measured{}
	var mu sync.Mutex
	var open sync.WaitGroup
	began := time.Now()
	for n := range int(float64(perSecond) * d.Seconds()) {
		due := began.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
		<-time.After(time.Until(due))
		open.Go(func() {
			ok := asks(client, url)
			mu.Lock()
			defer mu.Unlock()
			if !ok {
				m.failed++
				return
			}
			m.took = append(m.took, time.Since(due))
		})
	}
	open.Wait()
	slices.Sort(m.took)
	return m
}

func asks(client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url+"/polls/", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return err == nil && resp.StatusCode == http.StatusOK
}

func (m *measured) report(b *testing.B) {
	ms := func(q float64) float64 { return float64(m.quantile(q).Microseconds()) / 1000 }
	b.ReportMetric(100*float64(m.failed)/float64(m.failed+len(m.took)), "failed-%")
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

func (m *measured) quantile(q float64) time.Duration {
	if len(m.took) == 0 {
		return 0
	}
	return m.took[int(q*float64(len(m.took)-1))]
}

// requests returns how many requests HAProxy has sent to each process.
func (b *balancer) requests(fleet []*replica) (counts []float64) {
	for _, r := range fleet {
		n, err := strconv.ParseFloat(b.statistics(r)["stot"], 64)
		if err != nil {
			b.Error(err)
		}
		counts = append(counts, n)
	}
	return counts
}

// reportShares reports each process's share of the requests since before.
func (b *balancer) reportShares(to *testing.B, fleet []*replica, before []float64) {
	total, share := 0.0, map[string]float64{}
	for i, n := range b.requests(fleet) {
		share[fleet[i].name] = n - before[i]
		total += n - before[i]
	}
	for _, name := range []string{"small", "slow"} {
		to.ReportMetric(100*share[name]/total, name+"-%")
	}
}
