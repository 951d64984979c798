package activity

import (
	"cmp"
	"math"
	"slices"

	"ddtb/db"
)

// Status is a snapshot with its counts.
type Status struct {
	Snapshot
	Access            string   `json:"door"` // by which right the monitoring connection has its slot
	States            []Count  `json:"by_state"`
	Applications      []Group  `json:"by_application"`
	Databases         []Group  `json:"by_database"`
	Clients           []Group  `json:"by_client"` // user and address
	Others            []Count  `json:"other_backends"`
	OldestTransaction *Session `json:"oldest_transaction"`
	OldestIdleInTx    *Session `json:"oldest_idle_in_transaction"`
	LongestQuery      *Session `json:"longest_query"`
	WaitingOnLocks    []int32  `json:"waiting_on_locks"` // the longest wait first
	Unseen            int      `json:"unseen"`           // client sessions whose state the role may not see

	Replicas []ReplicaUse `json:"replicas,omitempty"` // of the ddtb servers that reported their own leases
}

// Count is the number of sessions with one name.
type Count struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// Group is the client sessions that have a property in common.
type Group struct {
	Name              string `json:"name,omitempty"` // the application; or Database; or User and Address
	Database          string `json:"database,omitempty"`
	User              string `json:"user,omitempty"`
	Address           string `json:"address,omitempty"`
	Sessions          int    `json:"sessions"`
	Active            int    `json:"active"`
	Idle              int    `json:"idle"`
	IdleInTransaction int    `json:"idle_in_transaction"`
	Waiting           int    `json:"waiting_for_lock"` // of the active ones
	Oldest            Age    `json:"oldest_seconds"`
}

// unseenState stands for a state that the role may not see.
const unseenState = "not visible"

// Summarise counts a snapshot.
func Summarise(s Snapshot) Status {
	st := Status{Snapshot: s, Access: s.AccessPath()}
	for _, p := range s.Processes {
		st.Replicas = append(st.Replicas, p.Replicas...)
	}
	clients := s.clients(func(Session) bool { return true })
	states, others := map[string]int{}, map[string]int{}
	for _, x := range s.Sessions {
		switch {
		case !x.Client():
			others[x.Kind]++
		case x.Hidden:
			st.Unseen++
			states[unseenState]++
		default:
			states[cmp.Or(x.State, "starting")]++
		}
	}
	st.States, st.Others = counts(states), counts(others)
	st.Applications = groups(clients, func(x Session) Group { return Group{Name: x.Application} })
	st.Databases = groups(clients, func(x Session) Group { return Group{Database: x.Database} })
	st.Clients = groups(clients, func(x Session) Group { return Group{User: x.User, Address: x.Address} })
	st.OldestTransaction = longest(clients, func(x Session) Age { return x.InTransaction })
	st.OldestIdleInTx = longest(clients, func(x Session) Age {
		if x.InTransactionIdle() {
			return x.InState
		}
		return 0
	})
	st.LongestQuery = longest(clients, inQuery)
	st.WaitingOnLocks = pids(s.waiting())
	return st
}

// longest returns the session with the greatest age, without our own; nil if all ages are zero.
func longest(sessions []Session, age func(Session) Age) (found *Session) {
	for i, s := range sessions {
		if !s.Self && age(s) > 0 && (found == nil || age(s) > age(*found)) {
			found = &sessions[i]
		}
	}
	return found
}

func counts(m map[string]int) []Count {
	out := make([]Count, 0, len(m))
	for name, n := range m {
		out = append(out, Count{name, n})
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// groups counts sessions by their key, the largest group first.
func groups(sessions []Session, key func(Session) Group) []Group {
	byKey := map[Group]*Group{}
	out := []Group{}
	for _, s := range sessions {
		k := key(s)
		g := byKey[k]
		if g == nil {
			g = &k
			byKey[k] = g
		}
		g.add(s)
	}
	for _, g := range byKey {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Database, b.Database),
			cmp.Compare(a.User, b.User), cmp.Compare(a.Address, b.Address))
	})
	return out
}

func (g *Group) add(s Session) {
	g.Sessions++
	g.Oldest = max(g.Oldest, s.Age)
	switch {
	case s.State == Active:
		g.Active++
	case s.State == Idle:
		g.Idle++
	case s.InTransactionIdle():
		g.IdleInTransaction++
	}
	if s.Waits {
		g.Waiting++
	}
}

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
