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

// BenchmarkAgent asks what HAProxy's agent-check is worth with four processes that are not alike: one has half the pool of
// the others, and one has a slow link to the database. Requests come at an even pace that the four can bear together, if
// each gets what it can bear. Both ways are measured in one run, on the same processes. It prints, for each,
//
//	failed-%    requests that were not answered with 200
//	p50, p99    of those that were, from the moment each was due
//	of-without  the p99 as a share of the p99 without the agent
//	small-%     of all requests, that went to the process with half the pool, which can bear 19 %
//	slow-%      that went to the one with the slow link, which can bear 6 %
//
// Measured on two cores:
//
//	                 roundrobin                       leastconn
//	                 failed  p99     small  slow      failed  p99     small  slow
//	without          13.6 %  821 ms  25 %   25 %      0 %     129 ms  28 %   8 %
//	with the agent    0 %    128 ms  20 %    9 %      0 %     125 ms  20 %   6 %
//
// 120 ms of the p99 are the slow link's own. leastconn sees a slow process by itself; what it does not see is the size of
// a pool.
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
					steady(at.url, benchRate, 8*time.Second) // until the weights are found
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
	benchLink = 10 * time.Millisecond // either way, so that a lease lasts for 20 ms at least
	benchSlow = 60 * time.Millisecond
	benchRate = 300 // requests a second; the four can bear about 200 + 200 + 100 + 33
	benchTime = 12 * time.Second
)

// unlike are the four processes: two that are alike, one with half the pool, one with a slow link.
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

// measured is what became of the requests of a load.
type measured struct {
	failed int
	took   []time.Duration // of those that were answered well
}

// steady sends so many requests a second, whether or not there are answers.
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

// requests is how many HAProxy has given to each.
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

// reportShares reports who was given how many of the requests since before.
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
