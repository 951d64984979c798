package db

import "time"

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
	return Stat{
		Strategy: o.Strategy, Reads: s.Reads + o.Reads,
		Acquired: s.Acquired + o.Acquired, Waited: s.Waited + o.Waited, WaitTotal: s.WaitTotal + o.WaitTotal,
		TimedOut: s.TimedOut + o.TimedOut, Refused: s.Refused + o.Refused, Leaked: s.Leaked + o.Leaked,
		Reclaimed: s.Reclaimed + o.Reclaimed, Nested: s.Nested + o.Nested,
		Connects: s.Connects + o.Connects, Connected: s.Connected + o.Connected,
		AgedOut: s.AgedOut + o.AgedOut, IdledOut: s.IdledOut + o.IdledOut,
	}
}

// Open returns the number of connections to the server, as far as the Source knows.
func (s Stat) Open() int { return s.Leases + s.Idle + s.Shared }
