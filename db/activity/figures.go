package activity

import (
	"math"

	"ddtb/db"
)

// Figures are the figures of a Status.
var Figures = []db.Figure[Status]{
	{Name: "ddtb_slots_max", Key: "max_connections", Help: "The server's max_connections.", Gauge: func(s *Status) float64 { return float64(s.Slots.Max) }},
	{Name: "ddtb_slots_reserved", Key: "reserved", Help: "Slots reserved for superusers and for roles with pg_use_reserved_connections.", Gauge: func(s *Status) float64 { return float64(s.Slots.Reserved) }},
	{Name: "ddtb_slots_usable", Key: "usable", Help: "Slots that an ordinary role can get.", Gauge: func(s *Status) float64 { return float64(s.Slots.Usable()) }},
	{Name: "ddtb_slots_used", Key: "used", Help: "Slots that are taken, by any role.", Gauge: func(s *Status) float64 { return float64(s.Slots.Used) }},
	{Key: "free", Gauge: func(s *Status) float64 { return float64(s.Slots.Free()) }},
	{Key: "utilisation_percent", Gauge: func(s *Status) float64 { return math.Round(10*s.Slots.Utilisation()) / 10 }},
	{Name: "ddtb_sessions_waiting_for_lock", Help: "Sessions that wait for another's lock.", Gauge: func(s *Status) float64 { return float64(len(s.WaitingOnLocks)) }},
	{Name: "ddtb_oldest_idle_in_transaction_seconds", Help: "Seconds the longest-idle session has been idle in transaction.", Gauge: func(s *Status) float64 {
		if s.OldestIdleInTx == nil {
			return 0
		}
		return s.OldestIdleInTx.InState.Duration().Seconds()
	}},
}
