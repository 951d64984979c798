package db

import (
	"slices"
)

// budgetView is one process's view of the budget at one moment. Every process decides by the same function of it, so no
// coordinator is needed: see change.
type budgetView struct {
	budget  int
	free    int   // free tickets
	demands []int // of all processes, in the same order for every process
	me      int   // index of this process
	held    int   // its tickets
	turn    int   // increases with time: whose turn it is where there are fewer tickets than processes
}

// change returns how many tickets to take or, if negative, to give back. A process that needs tickets takes up to its
// share. It gives back tickets beyond its share, because it is idle or because processes were added, when no ticket is
// free or when the total demand exceeds the budget.
func (v budgetView) change() int {
	share := shares(v.budget, v.demands, v.turn)[v.me]
	switch {
	case v.held < share && v.demands[v.me] > 0:
		return max(0, min(share-v.held, v.free))
	case v.held > share && (v.free <= 0 || v.contended()):
		return share - v.held
	}
	return 0
}

func (v budgetView) contended() bool {
	sum := 0
	for _, n := range v.demands {
		sum += n
	}
	return sum > v.budget
}

// shares divides the budget by max-min fairness: no process gets more than it needs, and processes that get less than
// they need get the same, give or take one. Each process gets at least one. If there are fewer tickets than processes,
// they take turns.
func shares(budget int, demands []int, turn int) []int {
	n := len(demands)
	got := make([]int, n)
	if n == 0 {
		return got
	}
	least := min(1, budget/n)
	order := make([]int, n) // by need, the least first
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return max(demands[a], least) - max(demands[b], least) })
	left := budget
	for k, i := range order {
		need := max(demands[i], least)
		if level := left / (n - k); need > level {
			divide(left, order[k:], got, turn)
			return got
		}
		got[i] = need
		left -= need
	}
	return got
}

// divide gives an equal part to each process that needs more than its part, and the remainder to the first of them. If
// the remainder is all there is, each turn begins with another process.
func divide(tickets int, among, got []int, turn int) {
	slices.Sort(among)
	each, rest := tickets/len(among), tickets%len(among)
	first := 0
	if each == 0 {
		first = turn * max(1, rest) % len(among)
	}
	for k := range among {
		i := among[(first+k)%len(among)]
		got[i] = each
		if k < rest {
			got[i]++
		}
	}
}
