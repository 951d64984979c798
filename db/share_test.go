package db

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestSharesAreFair(t *testing.T) {
	for name, c := range map[string]struct {
		budget  int
		demands []int
		turn    int
		want    []int
	}{
		"all that is needed":                  {10, []int{2, 3, 1}, 0, []int{2, 3, 1}},
		"the same, when all need more":        {12, []int{9, 9, 9}, 0, []int{4, 4, 4}},
		"the remainder to the first":          {11, []int{9, 9, 9}, 0, []int{4, 4, 3}},
		"no more than is needed":              {12, []int{2, 50, 50}, 0, []int{2, 5, 5}},
		"one at least":                        {4, []int{0, 50, 0}, 0, []int{1, 2, 1}},
		"the budget to a single one":          {7, []int{50}, 0, []int{7}},
		"turns, when there are too few":       {1, []int{1, 1, 1}, 0, []int{1, 0, 0}},
		"the next turn":                       {1, []int{1, 1, 1}, 1, []int{0, 1, 0}},
		"two at a turn":                       {2, []int{5, 5, 5}, 1, []int{1, 0, 1}},
		"nothing to those who need none then": {1, []int{0, 1}, 0, []int{0, 1}},
	} {
		if got := shares(c.budget, c.demands, c.turn); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func FuzzSharesAreNeverMoreThanTheBudget(f *testing.F) {
	f.Add(uint16(20), []byte{8, 8, 8}, uint8(0))
	f.Fuzz(func(t *testing.T, budget uint16, needs []byte, turn uint8) {
		demands := make([]int, len(needs))
		for i, n := range needs {
			demands[i] = int(n)
		}
		got := shares(int(budget), demands, int(turn))
		sum, most := 0, 0
		for _, n := range got {
			sum += n
			most = max(most, n)
		}
		if sum > int(budget) {
			t.Fatalf("%d of %d", sum, budget)
		}
		for i, n := range got {
			if n < demands[i] && n < most-1 {
				t.Errorf("one that needs %d has %d, another %d", demands[i], n, most)
			}
			if len(demands) <= int(budget) && n == 0 {
				t.Error("one has nothing")
			}
		}
	})
}

// The simulation: processes in virtual time that decide by budgetView.change, see what a real one sees, and poll when a
// real one polls. A lease lasts its own time: tickets to give back are freed when a lease ends.
type simulation struct {
	random  *rand.Rand
	budget  int
	free    int // free tickets
	procs   []*simulated
	now     time.Duration
	events  simulatedEvents
	polls   int
	peak    int
	lease   time.Duration // mean
	demands []int         // as published
}

type simulated struct {
	demand int // at this moment
	recent int // at the previous poll
	held   int // tickets, those of leases that are to be given back among them
	giving int // of them, to be given back when a lease ends
	short  bool
	polls  int // planned so far: only the last one takes place
}

type simulatedEvent struct {
	at time.Duration
	do func()
}

type simulatedEvents []simulatedEvent

func (e simulatedEvents) Len() int           { return len(e) }
func (e simulatedEvents) Less(i, j int) bool { return e[i].at < e[j].at }
func (e simulatedEvents) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *simulatedEvents) Push(x any)        { *e = append(*e, x.(simulatedEvent)) }
func (e *simulatedEvents) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

func newSimulation(processes, budget int, seed uint64) *simulation {
	s := &simulation{
		random: rand.New(rand.NewPCG(seed, 1)), budget: budget, free: budget,
		demands: make([]int, processes), lease: 50 * time.Millisecond,
	}
	for i := range processes {
		s.procs = append(s.procs, &simulated{})
		s.plan(i, time.Duration(s.random.Int64N(int64(s.every(budgetEvery)))))
	}
	return s
}

func (s *simulation) after(d time.Duration, do func()) {
	heap.Push(&s.events, simulatedEvent{s.now + d, do})
}

// every is how often a process polls at least: see tickets.poll.
func (s *simulation) every(d time.Duration) time.Duration {
	return max(d, time.Duration(len(s.procs))*budgetPerPeer)
}

// plan lets process i poll after that time, instead of when it was planned.
func (s *simulation) plan(i int, d time.Duration) {
	p := s.procs[i]
	p.polls++
	this := p.polls
	s.after(d, func() {
		if p.polls == this {
			s.poll(i)
		}
	})
}

func (s *simulation) poll(i int) {
	s.polls++
	p := s.procs[i]
	s.demands[i] = max(1, p.demand, p.recent)
	p.recent = p.demand
	v := budgetView{budget: s.budget, free: s.free, demands: s.demands, me: i, held: p.held - p.giving, turn: int(s.now / budgetTurn)}
	switch change := v.change(); {
	case change > 0:
		p.held += change
		s.free -= change
		s.peak = max(s.peak, s.budget-s.free)
	case change < 0:
		p.giving -= change
		for range -change { // at the end of a lease
			s.after(time.Duration(s.random.ExpFloat64()*float64(s.lease)), func() { p.held--; p.giving--; s.free++ })
		}
	}
	again := s.every(budgetEvery)
	if p.short = p.held-p.giving < p.demand; p.short {
		again = s.every(budgetRetry)
	}
	s.plan(i, again*3/4+time.Duration(s.random.Int64N(int64(again/2))))
}

// unfair is the furthest that a process is from its share.
func (s *simulation) unfair() (worst int) {
	now := make([]int, len(s.procs))
	for i, p := range s.procs {
		now[i] = max(1, p.demand)
	}
	for i, share := range shares(s.budget, now, 0) {
		if have := s.procs[i].held; have < share {
			worst = max(worst, share-have)
		} else if s.free == 0 {
			worst = max(worst, have-share)
		}
	}
	return worst
}

// untilFair runs until it is fair, give or take one, and returns how long that took.
func (s *simulation) untilFair(most time.Duration) (took time.Duration, fair bool) {
	began := s.now
	check := began
	for s.now-began < most {
		if s.now >= check {
			if s.unfair() <= 1 {
				return s.now - began, true
			}
			check = s.now + 10*time.Millisecond
		}
		s.step()
	}
	return s.now - began, false
}

func (s *simulation) step() {
	e := heap.Pop(&s.events).(simulatedEvent)
	s.now = e.at
	e.do()
}

func (s *simulation) run(d time.Duration) {
	for end := s.now + d; s.events[0].at < end; {
		s.step()
	}
}

// change gives each process another demand, at random: most need a few connections, some many. One that needs more than
// it polls at once, unless it waits already.
func (s *simulation) change() {
	for i, p := range s.procs {
		p.demand = int(math.Ceil(s.random.ExpFloat64() * 2 * float64(s.budget) / float64(len(s.procs))))
		if p.demand > p.held && !p.short {
			s.plan(i, time.Duration(s.random.Int64N(int64(10*time.Millisecond))))
		}
	}
}

func TestProcessesWithRandomDemandReachTheirShares(t *testing.T) {
	for _, c := range []struct {
		processes, budget int
		within            time.Duration
	}{{4, 40, 5 * time.Second}, {8, 20, 5 * time.Second}, {100, 200, 5 * time.Second}, {1000, 2000, 15 * time.Second}} {
		t.Run(fmt.Sprintf("%d processes, budget %d", c.processes, c.budget), func(t *testing.T) {
			s := newSimulation(c.processes, c.budget, 1)
			for round := range 5 {
				s.change()
				if took, fair := s.untilFair(c.within); !fair {
					t.Errorf("round %d: not fair after %v: %d", round, took, s.unfair())
				}
				s.run(3 * time.Second)
			}
			if s.peak > s.budget || s.free < 0 {
				t.Errorf("%d of %d", s.peak, s.budget)
			}
		})
	}
}

// BenchmarkBudget simulates processes whose demands change, all at the same moment, every 10 seconds of virtual time.
func BenchmarkBudget(b *testing.B) {
	for _, c := range []struct{ processes, budget int }{{4, 40}, {100, 200}, {1000, 2000}} {
		b.Run(fmt.Sprintf("processes=%d/budget=%d", c.processes, c.budget), func(b *testing.B) {
			var times []time.Duration
			var peak, polls, seconds float64
			for i := 0; b.Loop(); i++ {
				s := newSimulation(c.processes, c.budget, uint64(i))
				for range 5 {
					s.change()
					took, fair := s.untilFair(time.Minute)
					if !fair {
						b.Fatal("not fair after a minute")
					}
					times = append(times, took)
					s.run(max(time.Second, 10*time.Second-took))
				}
				peak = max(peak, float64(s.peak)/float64(s.budget))
				polls += float64(s.polls)
				seconds += s.now.Seconds()
			}
			slices.SortFunc(times, cmp.Compare[time.Duration])
			b.ReportMetric(peak, "peak/budget")
			b.ReportMetric(times[len(times)/2].Seconds(), "s-until-fair-p50")
			b.ReportMetric(times[len(times)-1].Seconds(), "s-until-fair-max")
			b.ReportMetric(polls/seconds, "polls/s")
		})
	}
}
