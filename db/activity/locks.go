package activity

import (
	"cmp"
	"slices"
)

// Roots are the sessions that others wait for and that wait for no lock themselves, the one with the longest
// queue first. PID 0 stands for a prepared transaction.
func (s Snapshot) Roots() []Session {
	byPID := map[int32]Session{0: {Kind: "prepared transaction"}}
	for _, x := range s.Sessions {
		byPID[x.PID] = x
	}
	behind := map[int32]int{}
	for _, x := range s.Sessions {
		for _, pid := range rootsOf(x, byPID) {
			behind[pid]++
		}
	}
	var roots []Session
	for pid := range behind {
		roots = append(roots, byPID[pid])
	}
	slices.SortFunc(roots, func(a, b Session) int {
		return cmp.Or(cmp.Compare(behind[b.PID], behind[a.PID]), cmp.Compare(a.PID, b.PID))
	})
	return roots
}

// rootsOf follows BlockedBy from one session to those that nobody blocks.
func rootsOf(x Session, byPID map[int32]Session) (roots []int32) {
	seen := map[int32]bool{x.PID: true}
	for next := x.BlockedBy; len(next) > 0; {
		var further []int32
		for _, pid := range next {
			b, there := byPID[pid]
			if seen[pid] || !there {
				continue
			}
			seen[pid] = true
			if len(b.BlockedBy) == 0 {
				roots = append(roots, pid)
			}
			further = append(further, b.BlockedBy...)
		}
		next = further
	}
	return roots
}
