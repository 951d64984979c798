package db

import (
	"errors"
	"time"
)

// PoolSettings are the settings of Pool. Those of the leak detection apply under every strategy.
type PoolSettings struct {
	MinSize           int           `toml:"min_size" allow:"0..10000"`
	MaxSize           int           `toml:"max_size" allow:"auto|1..10000"` // Auto: its share of Settings.Budget
	Timeout           time.Duration `toml:"timeout" allow:"1ms..10m"`       // how long a request waits for a lease; if it would wait for a third of it, it is refused at once
	MaxWaiting        int           `toml:"max_waiting" allow:"0..1000000"` // only protects memory; 0: no bound
	MaxLifetime       time.Duration `toml:"max_lifetime" allow:"1s..720h"`
	MaxIdle           time.Duration `toml:"max_idle" allow:"1s..720h"`
	HealthCheckPeriod time.Duration `toml:"health_check_period" allow:"100ms..1h"`
	LeakAfter         time.Duration `toml:"leak_after" allow:"0|100ms..24h"`    // 0: never reported
	ReclaimAfter      time.Duration `toml:"reclaim_after" allow:"0|100ms..24h"` // 0: never reclaimed
	Hold              string        `toml:"hold" allow:"query|request"`
}

// How long a request keeps a lease of the pool.
const (
	HoldQuery   = "query"   // released after each query
	HoldRequest = "request" // kept to the end of the request, as Django does
)

var defaultPool = PoolSettings{
	MaxSize: 10, Timeout: 10 * time.Second,
	MaxWaiting:  10_000, // 10,000 waiting requests take about 200 MB; Timeout bounds their wait
	MaxLifetime: time.Hour, MaxIdle: 30 * time.Minute, HealthCheckPeriod: time.Minute,
	LeakAfter: time.Minute, Hold: HoldQuery,
}

// mostSize is the largest pool. With Auto, the tickets bound it.
const mostSize = 10_000

func init() { Register(poolSpec()) }

func poolSpec() Spec {
	return Spec{
		Name:            Pool,
		Description:     "a bounded pool, with a queue before it that is bounded in time",
		Size:            func(s Settings) int { return s.Pool.MaxSize },
		SizeKey:         "pool.max_size",
		TimeoutKey:      "pool.timeout",
		Backends:        poolBackends,
		Timeout:         func(s Settings) time.Duration { return s.Pool.Timeout },
		HoldsForRequest: func(s Settings) bool { return s.Pool.Hold == HoldRequest },
		Show: func(s Settings) []Setting {
			p := s.Pool
			return []Setting{
				{Key: "pool.max_size", Title: "Size", Help: "At most so many connections; auto: its share of the budget.", Value: sizeOf(p), Auto: true},
				{Key: "pool.min_size", Title: "Least size", Help: "So many are kept open.", Value: p.MinSize},
				{Key: "pool.timeout", Title: "Timeout", Help: "How long a request waits for a lease, as 10s.", Value: p.Timeout},
				{Key: "pool.max_waiting", Title: "Most that wait", Help: "The next request is refused at once; 0: no bound.", Value: p.MaxWaiting},
				{
					Key: "pool.hold", Title: "Hold", Help: "A lease for each query, or kept to the request's end.",
					Value: p.Hold, Choices: []string{HoldQuery, HoldRequest},
				},
			}
		},
		Check: func(s Settings) error {
			size := within("pool.max_size", s.Pool.MaxSize, max(1, s.Pool.MinSize), mostSize)
			if s.Pool.MaxSize == Auto {
				size = nil
				if s.Pooler != "" {
					size = ErrPooledBudget
				}
			}
			return errors.Join(
				size, within("pool.min_size", s.Pool.MinSize, 0, mostSize),
				oneOf("pool.hold", s.Pool.Hold, HoldQuery, HoldRequest),
				atLeast("budget", s.Budget, 0), atLeast("pool.timeout", s.Pool.Timeout, time.Millisecond),
				atLeast("pool.max_lifetime", s.Pool.MaxLifetime, time.Millisecond),
				atLeast("pool.max_idle", s.Pool.MaxIdle, time.Millisecond),
				atLeast("pool.health_check_period", s.Pool.HealthCheckPeriod, time.Millisecond))
		},
		New: func(s Settings, c *Connector) (Strategy, error) { return newPool(s, c) },
	}
}

// sizeOf returns MaxSize as the value of a Setting.
func sizeOf(p PoolSettings) any {
	if p.MaxSize == Auto {
		return "auto"
	}
	return p.MaxSize
}

// poolBackends returns the most backends that the pool has.
func poolBackends(s Settings) int {
	if s.Pool.MaxSize == Auto {
		return s.Budget
	}
	return s.Pool.MaxSize
}
