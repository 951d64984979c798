package db

import (
	"math"
	"time"
)

// Stat is a snapshot of a Source. Its counters start when the Source comes into force.
type Stat struct {
	Strategy   string
	Size       int // the most leases at once; 0: no bound
	Leases     int // in use, or being connected
	Connecting int // running attempts to connect
	Idle       int // idle connections
	Shared     int // connections that all reads share

	// The budget at this process's last poll; 0 where Pool.MaxSize is not Auto.
	Budget        int // slots of all processes together
	Tickets       int // of this process, one for each connection that it has or makes
	TicketsOthers int // of the other processes
	TicketsFree   int

	InFlight   int           // reads sent and not yet answered
	Waiting    int           // requests in the queue
	OldestWait time.Duration // how long the first in the queue has waited; 0 without a queue

	Reads     int64         // declared reads on shared connections
	Joined    int64         // of these, those that shared the answer to another one
	Acquired  int64         // leases that got a place, including those whose connection failed
	Waited    int64         // leases that had to wait
	WaitTotal time.Duration // total wait of these leases
	TimedOut  int64         // waiters that gave up after the timeout
	Refused   int64         // requests that would have waited too long
	Leaked    int64         // leases that were held for leak_after, or whose rows were open at their request's end
	Reclaimed int64         // leases reclaimed after reclaim_after, or at their request's end
	Nested    int64         // leases requested while the request held one
	Connects  int64         // attempts to connect
	Connected int64         // attempts that succeeded
	AgedOut   int64         // connections of a pool that were closed after max_lifetime
	IdledOut  int64         // connections of a pool that were closed after max_idle
}

// plus adds the counters and leaves out the gauges.
func (s Stat) plus(o Stat) Stat {
	sum := Stat{Strategy: o.Strategy}
	for _, f := range Figures {
		if f.Counter != nil {
			*f.Counter(&sum) = *f.Counter(&s) + *f.Counter(&o)
		}
	}
	return sum
}

// Open returns the number of connections to the server, as far as the Source knows.
func (s Stat) Open() int { return s.Leases + s.Idle + s.Shared }

// Figure is one number of a snapshot S, such as a Stat. Metrics, JSON and pages range over lists of figures. Gauge or
// Counter returns the number.
type Figure[S any] struct {
	Name, Help string           // of the metric, with its unit; "": it is not exported
	Key        string           // in the JSON of the start page; "": it is not there
	Title      string           // in the dashboard's table of counters; "": it is not there
	Gauge      func(*S) float64 // NaN: not known
	Counter    func(*S) *int64
}

// Value returns the figure of s.
func (f Figure[S]) Value(s *S) float64 {
	if f.Counter != nil {
		return float64(*f.Counter(s))
	}
	return f.Gauge(s)
}

// boundOf returns NaN where there is no bound.
func boundOf(s *Stat) float64 {
	if s.Size == 0 {
		return math.NaN()
	}
	return float64(s.Size)
}

// Figures are the figures of a Stat. A new figure is a field of Stat and a line here.
var Figures = []Figure[Stat]{
	{Name: "pgxpool_max_conns", Help: "At most so many leases at once; absent where there is no bound.", Gauge: boundOf},
	{Name: "pgxpool_acquired_conns", Key: "leases", Help: "Leases that are out, or being connected.", Gauge: func(s *Stat) float64 { return float64(s.Leases) }},
	{Name: "pgxpool_constructing_conns", Help: "Attempts to connect that are under way.", Gauge: func(s *Stat) float64 { return float64(s.Connecting) }},
	{Name: "pgxpool_idle_conns", Key: "idle", Help: "Idle connections.", Gauge: func(s *Stat) float64 { return float64(s.Idle) }},
	{Name: "pgxpool_total_conns", Help: "Connections, held or not.", Gauge: func(s *Stat) float64 { return float64(s.Open()) }},
	{Name: "ddtb_shared_conns", Help: "Connections that all reads share, under the strategy multiplex.", Gauge: func(s *Stat) float64 { return float64(s.Shared) }},
	{Name: "ddtb_reads_in_flight", Help: "Reads sent down them and not yet answered.", Gauge: func(s *Stat) float64 { return float64(s.InFlight) }},
	{Name: "ddtb_budget", Help: "Connections that all processes may have together; 0 unless pool.max_size is auto.", Gauge: func(s *Stat) float64 { return float64(s.Budget) }},
	{Name: "ddtb_budget_tickets_own", Help: "Of the budget, those of this process.", Gauge: func(s *Stat) float64 { return float64(s.Tickets) }},
	{Name: "ddtb_budget_tickets_others", Help: "Of the budget, those of the other processes.", Gauge: func(s *Stat) float64 { return float64(s.TicketsOthers) }},
	{Name: "ddtb_budget_tickets_free", Help: "Of the budget, those that no process has.", Gauge: func(s *Stat) float64 { return float64(s.TicketsFree) }},
	{Name: "ddtb_waiting_requests", Key: "waiting", Help: "Requests that wait for a lease.", Gauge: func(s *Stat) float64 { return float64(s.Waiting) }},
	{Name: "ddtb_oldest_wait_seconds", Help: "How long the first of them has waited.", Gauge: func(s *Stat) float64 { return s.OldestWait.Seconds() }},

	{Name: "ddtb_shared_reads_total", Title: "Reads on shared connections", Help: "Reads that needed no lease.", Counter: func(s *Stat) *int64 { return &s.Reads }},
	{Name: "ddtb_joined_reads_total", Title: "… of these with another one's answer", Help: "Reads that asked the same as one that waited, and shared its answer.", Counter: func(s *Stat) *int64 { return &s.Joined }},
	{Title: "Leases given out", Counter: func(s *Stat) *int64 { return &s.Acquired }},
	{Name: "pgxpool_empty_acquire", Title: "… of these after a wait", Help: "Leases that had to be waited for.", Counter: func(s *Stat) *int64 { return &s.Waited }},
	{Name: "pgxpool_empty_acquire_wait_time_ns", Help: "Nanoseconds that they were waited for.", Counter: func(s *Stat) *int64 { return (*int64)(&s.WaitTotal) }},
	{Title: "Waiters that gave up after the timeout", Counter: func(s *Stat) *int64 { return &s.TimedOut }},
	{Name: "ddtb_refused_requests_total", Title: "Requests that found the queue full", Help: "Requests that would have waited too long for a lease, and were refused at once.", Counter: func(s *Stat) *int64 { return &s.Refused }},
	{Name: "ddtb_leaked_leases_total", Title: "Leases out for too long", Help: "Leases that were out for longer than leak_after, or with open rows at the end of their request.", Counter: func(s *Stat) *int64 { return &s.Leaked }},
	{Name: "ddtb_reclaimed_leases_total", Title: "Leases taken back", Help: "Leases that were taken back after reclaim_after, or with open rows at the end of their request.", Counter: func(s *Stat) *int64 { return &s.Reclaimed }},
	{Name: "ddtb_nested_leases_total", Title: "Leases asked for by a request that held one", Help: "Leases asked for by a request that held one already.", Counter: func(s *Stat) *int64 { return &s.Nested }},
	{Name: "ddtb_connects_total", Title: "Attempts to connect", Help: "Attempts to connect, those that failed too.", Counter: func(s *Stat) *int64 { return &s.Connects }},
	{Name: "pgxpool_new_conns_count", Title: "… of these with success", Help: "Connections that were made.", Counter: func(s *Stat) *int64 { return &s.Connected }},
	{Name: "pgxpool_max_lifetime_destroy_count", Help: "Connections of a pool that were closed after max_lifetime.", Counter: func(s *Stat) *int64 { return &s.AgedOut }},
	{Name: "pgxpool_max_idle_destroy_count", Help: "Connections of a pool that were closed after max_idle.", Counter: func(s *Stat) *int64 { return &s.IdledOut }},
}
