package db

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
// they need get the same, give or take one. Each process gets at least one. If fewer tickets than processes need one,
// they take turns.
func shares(budget int, demands []int, turn int) []int {
	got, needs := make([]int, len(demands)), make([]int, len(demands))
	var needy []int
	for i, demand := range demands {
		needs[i] = max(demand, min(1, budget/len(demands)))
		if needs[i] > 0 {
			needy = append(needy, i)
		}
	}
	first := 0
	if budget < len(needy) {
		first = turn % len(needy) * max(1, budget)
	}
	for left, given := budget, -1; left > 0 && given != 0; { // each round gives one to each that needs more
		given = 0
		for k := range needy {
			if i := needy[(first+k)%len(needy)]; got[i] < needs[i] && given < left {
				got[i]++
				given++
			}
		}
		left -= given
	}
	return got
}
