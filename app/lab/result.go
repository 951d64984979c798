package lab

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/web"
)

// result is the response of a test endpoint as a page. Other clients get the JSON.
type result struct {
	Title, Lead, Shows string
	Waits              []wait
	Most               float64  // of Waits, in seconds
	Lines              []string // events in order
	More               int      // number of lines left out
	Next               []web.Link
	JSON               string
}

// wait is the wait of one holder.
type wait struct {
	Name    string
	Seconds float64
	Failed  bool
}

// mostLines limits the lines on a page.
const mostLines = 50

// dashboardPath is the live view of the strategy's leases, in another package. It is only used for a link.
const dashboardPath = "/admin/connections/"

// answer writes the JSON, or the page for a browser.
func answer(c echo.Context, status int, v any, page func() result) error {
	if !web.WantsHTML(c) {
		return c.JSONPretty(status, v, "  ")
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write the answer of a test: %w", err)
	}
	r := page()
	if n := len(r.Lines); n > mostLines {
		r.Lines, r.More = r.Lines[:mostLines], n-mostLines
	}
	r.Waits = r.Waits[:min(len(r.Waits), mostLines)]
	r.JSON = string(text)
	return pages.Render(c, status, "result.html", r)
}

func (s *Stress) page(threads []thread) result {
	r := result{
		Title: "Pool stress",
		Lead: fmt.Sprintf("%d holders asked for a connection at once, and each held it for %s: %d got one, %d did not.",
			s.Threads, s.Hold, s.Successes, s.Failures),
		Shows: fmt.Sprintf("The strategy was %s. At most %d connections were open on the server. Half of the holders waited %.0f ms or less; the longest wait was %.0f ms.",
			s.Strategy, s.PeakConnections, s.WaitsMS.P50, s.WaitsMS.Max),
		Lines: append(append([]string{}, s.Errors...), s.Results...), Most: max(s.WaitsMS.Max/1000, 0.001),
		Next: []web.Link{{Path: "/lab/slow-query-pile-up/", Text: "See in the lab how a pool fills up, and what helps"}, toDashboard},
	}
	if s.PeakError != "" {
		r.Shows += " There may have been more connections: " + s.PeakError + "."
	}
	for i, t := range threads {
		r.Waits = append(r.Waits, wait{fmt.Sprintf("Thread %d", i), seconds(t.waited), t.err != nil})
	}
	return r
}

var toDashboard = web.Link{Path: dashboardPath, Text: "Watch the leases on the dashboard (for staff)"}

func (l *Leak) page() result {
	r := result{
		Title: "Connection leak",
		Lead: fmt.Sprintf("%d of %d leases were acquired and not released. They are reclaimed after %s.",
			len(l.Attempts), l.Count, l.Reclaim),
		Shows: "Code that does not release its lease on every return does this. While no connection is free, pages that need one fail.",
		Lines: append(append([]string{}, l.Errors...), l.Attempts...),
		Next:  []web.Link{{Path: "/lab/rows-not-closed/", Text: "See a leak in the lab, and its fix"}, toDashboard},
	}
	for _, h := range l.Leaked {
		age := time.Duration(h.AgeSeconds * float64(time.Second)).Round(10 * time.Millisecond)
		r.Lines = append(r.Lines, fmt.Sprintf("Held for %v by %s, on backend %d", age, h.Where, h.BackendPID))
	}
	return r
}

func (s *Sentry) page() result {
	r := result{
		Title: "Sentry and the database",
		Lead:  fmt.Sprintf("The captures took %d connections.", s.ConnectionsTaken),
		Shows: s.Explanation,
		Next:  []web.Link{{Path: "/lab/hook-queries/", Text: "See in the lab what a hook that queries does"}, toDashboard},
	}
	for _, step := range s.Steps {
		line := fmt.Sprintf("%s: %.0f ms, %d connections taken", step.Step, step.TookMS, step.ConnectionsTaken)
		if step.Error != "" {
			line += ": " + step.Error
		}
		r.Lines = append(r.Lines, line)
	}
	return r
}
