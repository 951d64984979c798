package db

import (
	"slices"
)

// budgetView is what one process sees of the budget at one moment. Every process decides by the same function of it, so
// that no coordinator is needed: see change.
type budgetView struct {
	budget  int
	free    int   // tickets that nobody holds
	demands []int // of all processes, in an order that all of them agree on
	me      int   // index of this process
	held    int   // its tickets
	turn    int   // grows with the time: whose turn it is where there are fewer tickets than processes
}

// change returns how many tickets to take, or, if it is negative, to give back. A process takes up to its share. What it
// holds beyond that, because it is idle or because others came, it gives back when no ticket is free, or when all together
// need more than there is.
func (v budgetView) change() int {
	share := shares(v.budget, v.demands, v.turn)[v.me]
	switch {
	case v.held < share:
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

// shares divides the budget by max-min fairness: nobody gets more than it needs, and whoever gets less than that gets as
// much as any other, give or take one. Each process gets one at least. Where there are fewer tickets than processes, they
// take turns.
func shares(budget int, demands []int, turn int) []int {
	n := len(demands)
	got := make([]int, n)
	if n == 0 {
		return got
	}
	least := min(1, budget/n)
	order := make([]int, n) // by what they need, the least first
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

// divide gives those who need more than there is the same, and the remainder to the first of them; where the remainder is
// all there is, it begins with another each time.
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
