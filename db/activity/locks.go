package activity

import (
	"cmp"
	"slices"
	"strings"
)

// Roots returns the sessions that others wait for and that wait for no lock themselves, the one with the longest queue
// first. PID 0 stands for a prepared transaction.
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

// Blocks reports for each session whether it is one of Roots.
func (s Snapshot) Blocks() map[int32]bool {
	blocks := map[int32]bool{}
	for _, r := range s.Roots() {
		blocks[r.PID] = true
	}
	return blocks
}

// rootsOf follows BlockedBy from one session to the unblocked ones.
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

// replayed reports whether the root of a lock queue is the replay of the primary's changes. Its process is hidden from an
// ordinary role.
func (s Snapshot) replayed(roots []Session) bool {
	if len(roots) > 0 {
		return roots[0].Kind == Startup
	}
	blocked := s.clients(func(x Session) bool { return len(x.BlockedBy) > 0 })
	byKnown := func(x Session) bool {
		return slices.ContainsFunc(s.Sessions, func(y Session) bool { return slices.Contains(x.BlockedBy, y.PID) })
	}
	return s.Server.Standby && len(blocked) > 0 && !slices.ContainsFunc(blocked, byKnown)
}

// inReplaysWay returns the session that replay most likely waits for: of those in the same database that wait for no lock,
// the one whose transaction is the oldest, if it is older than the waits behind replay. There is none if replay waits for no
// lock, because it has that of a transaction that is open on the primary, nor if sessions are hidden: it may be one of them.
func (s Snapshot) inReplaysWay() (oldest Session, ok bool) {
	waiting := s.waiting()
	if roots := s.Roots(); len(waiting) == 0 || len(roots) > 0 && !strings.HasPrefix(roots[0].Wait, "Lock/") || s.hides() {
		return Session{}, false
	}
	older := s.longestFirst(func(x Session) Age { return x.InTransaction }, func(x Session) bool {
		return !x.Self && !x.Waits && x.Database == waiting[0].Database && x.InTransaction > waiting[0].Waited
	})
	if len(older) == 0 {
		return Session{}, false
	}
	return older[0], true
}

// hides reports whether this role does not see what a client's session does.
func (s Snapshot) hides() bool { return len(s.clients(func(x Session) bool { return x.Hidden })) > 0 }

// holdsAdvisoryLock reports whether all that wait directly for the session wait for an advisory lock.
func (s Snapshot) holdsAdvisoryLock(root Session) bool {
	behind := s.clients(func(x Session) bool { return slices.Contains(x.BlockedBy, root.PID) })
	other := func(x Session) bool { return x.Wait != "Lock/advisory" }
	return len(behind) > 0 && !slices.ContainsFunc(behind, other)
}

// waiting returns the client sessions that wait for a lock, the longest wait first.
func (s Snapshot) waiting() []Session {
	return s.longestFirst(func(x Session) Age { return x.Waited }, func(x Session) bool { return x.Waits })
}

// queueHead returns a session that itself waits for a table's lock, and how many sessions wait only because it is ahead
// of them: if its statement is cancelled, they continue, and so does the session that it waits for. An example is ALTER
// TABLE behind a long SELECT. If the number is 0, there is none.
func (s Snapshot) queueHead() (head Session, freed int) {
	const table = "Lock/relation"
	waiting := s.clients(func(x Session) bool { return x.Waits && x.Wait == table })
	for _, w := range waiting {
		if n := freedBy(w, waiting); w.State == Active && n > freed {
			head, freed = w, n
		}
	}
	return head, freed
}

// freedBy counts the sessions that wait only for w, or for sessions that do.
func freedBy(w Session, waiting []Session) int {
	free := map[int32]bool{w.PID: true}
	for grew := true; grew; {
		grew = false
		for _, x := range waiting {
			held := slices.ContainsFunc(x.BlockedBy, func(pid int32) bool { return !free[pid] })
			if !free[x.PID] && len(x.BlockedBy) > 0 && !held {
				free[x.PID], grew = true, true
			}
		}
	}
	return len(free) - 1
}
