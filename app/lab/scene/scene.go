// Package scene is the harness of the lab. It runs a Scenario twice under the same load on a real PostgreSQL, without
// the fix and with it. From the counts it decides whether the failure was reproduced and fixed.
//
// What callers can rely on:
//
//   - Every figure is counted: backends on the server, by a superuser's session every 25 ms; requests and errors at
//     the client; latency from the time at which a request was due, so that a slow server can't hide its queue.
//   - The server is private: it has few slots and its own directory and port, and is removed at the end.
//   - Each variant starts on an empty server, and leaves no backend, goroutine or process behind.
//   - A run is limited in requests and time, and ends within a second when its context ends.
//
// The package does not depend on any scenario, page or command.
package scene

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
)

// Threads returns links to the public threads "owner/repository#number" on GitHub.
func Threads(refs ...string) (links []Link) {
	for _, ref := range refs {
		repository, number, _ := strings.Cut(ref, "#")
		url := "https://github.com/" + repository + "/issues/" + number
		if repository == "debusine" {
			url = "https://salsa.debian.org/freexian-team/debusine/-/issues/" + number
		}
		links = append(links, Link{ref, url})
	}
	return links
}

// Family groups scenarios by their kind of failure.
type Family string

// The five families, in display order.
const (
	Leaks     Family = "leaks"
	TooMany   Family = "too many at once"
	TooLong   Family = "holding too long"
	Recovery  Family = "recovery"
	Reporting Family = "reporting"
)

// Families lists all of them in order.
var Families = []Family{Leaks, TooMany, TooLong, Recovery, Reporting}

// Link is a web address.
type Link struct{ Text, URL string }

// Request is one request to a scenario's application, the n-th of its load, from 0. Its context ends at the client's
// timeout. The error is the one that the user sees.
type Request func(ctx context.Context, n int) error

// Variant sets up a scenario's application, without the fix or with it.
type Variant func(*Stage) Request

// Load is the same for both variants. It is open-loop: requests are sent when due, regardless of response times.
type Load struct {
	Requests int
	Every    time.Duration // between requests; 0: all at once
	Burst    int           // requests sent together; 0: 1
	Patience time.Duration // the client's timeout, from the time its request was due; 0: 1 s
}

func (l Load) patience() time.Duration { return cmp.Or(l.Patience, time.Second) }

func (l Load) due(n int) time.Duration { return time.Duration(n/max(1, l.Burst)) * l.Every }

// Scenario is one way in which applications run PostgreSQL out of connections.
type Scenario struct {
	Number  int
	Name    string // as in `ddtb lab run NAME`
	Title   string // what happens, in one line
	Family  Family
	Message string // the message that users see
	Why     string // the mechanism, in three sentences
	Figure  string // the unit of Value, such as "requests refused"
	FixedBy string // completes "fixed by …"
	Note    string // needed to compare the figures; may be empty
	SQL     string // one statement that shows the failure on the reader's server
	Recipe  string // the group of recipes for other stacks
	Threads []Link // where it was reported

	Slots     int // for applications; 0: 20
	Load      Load
	Setup     func(*Stage)     // before both variants; may be nil
	Value     func(*Stage) int // the figure; nil: the failed requests
	Of        int              // the total of the figure; 0: the requests
	Tolerated int              // the highest figure that counts as fixed
	Fails     Variant          // without the fix
	Works     Variant          // with it
}

// ServerSlots returns the number of connections for applications on its server.
func (s *Scenario) ServerSlots() int { return cmp.Or(s.Slots, 20) }

func (s *Scenario) of() int { return cmp.Or(s.Of, s.Load.Requests) }

// The two halves of a run.
const (
	Failure = "failure"
	Fix     = "fix"
)

// Headings are the names of the halves for people.
var Headings = map[string]string{Failure: "Without the fix", Fix: "With the fix"}

// Sample is the state of a run at one time.
type Sample struct {
	At       time.Duration // since the load started
	Backends int           // of the scenario on the server
	Served   int           // requests so far
	Refused  int
}

// Outcome is the result of one half.
type Outcome struct {
	Value     int            `json:"value"`
	Of        int            `json:"of"`
	Peak      int            `json:"peak_backends"`
	Slots     int            `json:"slots"`
	SQLStates map[string]int `json:"sqlstates"` // the server's codes for the requests that failed
	Timeouts  int            `json:"timeouts"`  // requests that failed because the client or a queue lost patience
	Served    int            `json:"served"`
	Refused   int            `json:"refused"`
	P50       float64        `json:"p50_ms"` // of all requests, from the moment at which each was due
	P99       float64        `json:"p99_ms"`
	Message   string         `json:"message,omitempty"` // of the failure that was most frequent
	Samples   []Sample       `json:"-"`
}

// State returns the most frequent error code of the server, or "".
func (o *Outcome) State() string { return mostFrequent(o.SQLStates) }

// Result is the result of a run.
type Result struct {
	Number     int      `json:"number"`
	Name       string   `json:"name"`
	Title      string   `json:"title"`
	Figure     string   `json:"figure"`
	Failure    *Outcome `json:"failure,omitempty"`
	Fix        *Outcome `json:"fix,omitempty"`
	Reproduced bool     `json:"reproduced"`
	Fixed      bool     `json:"fixed"`
	Seconds    float64  `json:"seconds"`
	Error      string   `json:"error,omitempty"` // why it could not be run to its end

	FixedBy string    `json:"-"`
	At      time.Time `json:"-"`
	Server  string    `json:"-"` // the version of PostgreSQL
}

// NewResult returns the result of a scenario that is about to run.
func NewResult(s *Scenario) *Result {
	return &Result{Number: s.Number, Name: s.Name, Title: s.Title, Figure: s.Figure, FixedBy: s.FixedBy, At: time.Now()}
}

// OK reports whether each half that ran had the expected result.
func (r *Result) OK() bool {
	return r.Error == "" && (r.Failure == nil || r.Reproduced) && (r.Fix == nil || r.Fixed)
}

// Verdict describes the result in words.
func (r *Result) Verdict() string {
	switch {
	case r.Error != "":
		return "could not be run: " + r.Error
	case r.Failure != nil && !r.Reproduced:
		return "not reproduced"
	case r.Fix == nil:
		return "reproduced"
	case !r.Fixed && r.Failure == nil:
		return "not fixed"
	case !r.Fixed:
		return "reproduced; not fixed"
	case r.Failure == nil:
		return "fixed by " + r.FixedBy
	}
	return "reproduced; fixed by " + r.FixedBy
}

// Half is one of the two halves of a result, with its heading.
type Half struct {
	*Outcome
	Heading string
}

// Halves returns the halves that ran.
func (r *Result) Halves() (list []Half) {
	for _, h := range []Half{{r.Failure, Headings[Failure]}, {r.Fix, Headings[Fix]}} {
		if h.Outcome != nil {
			list = append(list, h)
		}
	}
	return list
}

// Words formats the outcome's figure: "105 of 200 requests refused".
func (r *Result) Words(o *Outcome) string { return fmt.Sprintf("%d of %d %s", o.Value, o.Of, r.Figure) }
