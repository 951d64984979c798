package dashboard

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"ddtb/app/report"
	"ddtb/app/web"
)

// mostFailures is the number of individual failures kept.
const mostFailures = 50

// inOurCode is the page's text for report.InternalError.
const inOurCode = "error in the application"

// failures keeps the last failed requests and counts failures by cause. It stores only what the visitor was shown: no
// error text, and no query string.
type failures struct {
	mu      sync.Mutex
	last    []failure // oldest first
	byCause map[string]tally
	all     int
}

type failure struct {
	at                     time.Time
	cause, route, sentence string
}

type tally struct {
	count int
	last  failure
}

func newFailures() *failures { return &failures{byCause: map[string]tally{}} }

func (f *failures) add(at time.Time, route string, err error) {
	x := failure{
		at: at, route: cmp.Or(route, "no such address"), cause: report.CauseOf(err), sentence: web.ProblemOf(err).Detail,
	}
	if x.cause == report.InternalError {
		x.cause = inOurCode
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all++
	f.byCause[x.cause] = tally{f.byCause[x.cause].count + 1, x}
	f.last = append(f.last[max(0, len(f.last)-mostFailures+1):], x)
}

// words formats the failures as cells: causes by frequency, individual failures newest first.
func (f *failures) words() (byCause, oneByOne [][]string, total string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	tallies := slices.SortedFunc(maps.Values(f.byCause), func(a, b tally) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.last.cause, b.last.cause))
	})
	for _, t := range tallies {
		x := t.last
		byCause = append(byCause, []string{x.cause, strconv.Itoa(t.count), clock(x.at), x.route, x.sentence})
	}
	for _, x := range slices.Backward(f.last) {
		oneByOne = append(oneByOne, []string{clock(x.at), x.cause, x.route, x.sentence})
	}
	return byCause, oneByOne, strconv.Itoa(f.all)
}
