package activity

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"ddtb/db"
)

// The history of a ProcessMonitor.
const (
	pollEvery = time.Second
	lookBack  = time.Minute
)

// ProcessMonitor polls the figures of one DB, so that a Process can be compared with an earlier moment. It sends
// nothing to the database.
type ProcessMonitor struct {
	db *db.DB

	mu       sync.Mutex
	settings db.Settings
	polls    []poll    // of the last minute, the oldest first, all under the same settings
	stalled  poll      // the first poll at which every lease was in use, with none given since; zero if not so
	failure  *failedAt // within the last minute, under these settings

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// poll holds the figures at one moment.
type poll struct {
	at   time.Time
	stat db.Stat
}

type failedAt struct {
	at  time.Time
	err *db.ConnError
}

// StartProcessMonitor begins to poll d, until Stop.
func StartProcessMonitor(d *db.DB) *ProcessMonitor {
	ctx, stop := context.WithCancel(context.Background())
	m := &ProcessMonitor{db: d, stop: stop}
	m.Now()
	m.stopped.Go(func() { Every(ctx, pollEvery, func() { m.Now() }) })
	return m
}

// Stop stops the polls and waits until they have ended. It may be called twice.
func (m *ProcessMonitor) Stop() {
	m.stop()
	m.stopped.Wait()
}

// pollLocked records the current figures and drops those that are too old. New settings start new counters, and
// failures under the old ones no longer count.
func (m *ProcessMonitor) pollLocked(at time.Time) poll {
	if settings := m.db.Config(); settings != m.settings {
		m.settings, m.polls, m.stalled, m.failure = settings, nil, poll{}, nil
	}
	now := poll{at, m.db.Stat()}
	if full := now.stat.Size > 0 && now.stat.Leases >= now.stat.Size; !full {
		m.stalled = poll{}
	} else if m.stalled.at.IsZero() || m.stalled.stat.Acquired != now.stat.Acquired {
		m.stalled = now
	}
	if failed, err := m.db.Failing(); err != nil {
		if ce, ok := errors.AsType[*db.ConnError](err); ok {
			m.failure = &failedAt{failed, ce}
		}
	}
	if m.failure != nil && at.Sub(m.failure.at) >= lookBack {
		m.failure = nil
	}
	if n := len(m.polls); n == 0 || at.Sub(m.polls[n-1].at) >= pollEvery/2 {
		m.polls = append(m.polls, now)
	}
	for len(m.polls) > 1 && at.Sub(m.polls[1].at) >= lookBack {
		m.polls = m.polls[1:]
	}
	return now
}

// Now returns the process at this moment.
func (m *ProcessMonitor) Now() Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := time.Now()
	now := m.pollLocked(at)
	past := m.polls[0]
	p := Process{
		At: at, PID: os.Getpid(), Application: m.settings.ApplicationName,
		Now: now.stat, Past: past.stat, Within: Age(at.Sub(past.at)),
		FailedRecently: lost(now.stat) - lost(m.before(at.Add(-recently)).stat),
		LeakAfter:      Age(m.settings.Pool.LeakAfter),
	}
	if spec, ok := db.Lookup(m.settings.Strategy); ok {
		p.KeepsLeases = spec.HoldsForRequest(m.settings)
	}
	if !m.stalled.at.IsZero() {
		p.Stalled, p.FailedSinceStall = Age(at.Sub(m.stalled.at)), lost(now.stat)-lost(m.stalled.stat)
	}
	p.Holders = m.db.Holders()
	p.Holders = p.Holders[:min(len(p.Holders), mostHolders)]
	for _, r := range m.db.Replicas() {
		p.Replicas = append(p.Replicas, ReplicaUse{p.PID, r.Host, r.Serves, r.Why, Age(r.Lag), r.Reads})
	}
	if f := m.failure; f != nil {
		_, err := m.db.Failing()
		p.Failure = &ConnectFailure{Cause: f.err.Cause, Limit: f.err.Limit(), Ago: Age(at.Sub(f.at)), Over: err == nil}
	}
	return p
}

// lost returns the number of requests that failed without a lease.
func lost(s db.Stat) int64 { return s.TimedOut + s.Refused }

// before returns the last poll at or before that time, or else the oldest. m.mu is held.
func (m *ProcessMonitor) before(at time.Time) poll {
	found := m.polls[0]
	for _, p := range m.polls {
		if !p.at.After(at) {
			found = p
		}
	}
	return found
}
