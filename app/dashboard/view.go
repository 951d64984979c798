package dashboard

import (
	"cmp"
	"fmt"
	"html/template"
	"strconv"
	"time"

	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
)

// readings are the figures that one event shows.
type readings struct {
	activity.Reading
	late bool // the server's answer is overdue
	at   time.Time
	cfg  config.Database

	waits    recentWaits
	stat     db.Stat
	connects float64 // attempts to connect, a second

	monitor config.Monitor
	budget  activity.Budget
}

// view is the formatted text of the readings.
type view struct {
	Level  string                `json:"level"` // ok, warning, critical or unknown
	Class  string                `json:"class"` // of the note that says so
	Texts  map[string]string     `json:"texts"`
	Tables map[string][][]string `json:"tables"`

	Findings  template.HTML `json:"findings"` // the reasons and what to do, but for what changes all the time: that is in Texts
	diagnosis activity.Diagnosis
}

// seen reports whether there is a recent, successful reading of the server.
func (s *readings) seen() bool { return !s.late && s.Err == nil && s.Sample.Slots != nil }

// render formats the readings.
func (f *feed) render(s readings) view {
	v := view{Texts: map[string]string{"at": clock(s.at)}, Tables: map[string][][]string{}}
	v.judge(&s, f.diagnose(&s))
	v.server(&s)
	v.process(&s)
	v.holders(f.o.DB.Holders(), &s)
	v.replicas(f.o.DB.Replicas())
	byCause, oneByOne, total := f.failures.words()
	v.Texts["failures"] = total
	v.Texts["failures_more"] = "since the start"
	if len(oneByOne) > 0 {
		v.Texts["failures_more"] = "the last at " + oneByOne[0][0] + ": " + oneByOne[0][1]
	}
	v.Tables["causes"] = orNone(byCause, "No request has failed since the start.")
	v.Tables["failures"] = orNone(oneByOne, "No request has failed since the start.")
	return v
}

// judge summarizes the health of server and process in a sentence, and lists causes and steps.
func (v *view) judge(s *readings, d activity.Diagnosis) {
	h, text := d.Health, "No problem found, on the server or in this process."
	switch {
	case s.Sample.At.IsZero():
		text = "The server is being polled for the first time."
	case s.late:
		text = "The server takes long to answer: its figures are old, this process’s own are current."
	}
	if len(h.Findings) > 0 {
		first := sentence(h.Findings[0])
		if s.late {
			first = text + " " + first
		}
		text = first
	}
	v.Level, v.Class = h.Level.String(), classes[h.Level]
	v.Texts["level"], v.Texts["verdict"] = web.Capitalized(v.Level), text
	if h.Level == activity.OK {
		v.Texts["level"] = "OK"
	}
	v.diagnosis, v.Findings = d, findingsHTML(d, false)
	for i, f := range h.Findings {
		v.Texts[fmt.Sprintf("finding_%d", i)] = sentence(f)
	}
}

// diagnose returns the same diagnosis as `ddtb db-connections doctor`, for the server and this process.
func (f *feed) diagnose(s *readings) (d activity.Diagnosis) {
	process := f.o.Process()
	switch {
	case s.Sample.At.IsZero() || s.late:
		d.Health = activity.Health{Level: activity.Unknown}.With(process)
	case s.Err != nil:
		d.Health = activity.Unreachable(s.Err).With(process)
	default:
		now := s.Snapshot
		now.Processes = []activity.Process{process}
		d = activity.Diagnose(now, s.Earlier, f.o.Sampler.Thresholds())
	}
	return d.Complete(f.o.Complete)
}

// server formats the server's figures.
func (v *view) server(s *readings) {
	if !s.seen() {
		for _, name := range []string{"slots", "new"} {
			v.Texts[name], v.Texts[name+"_more"] = "–", "not known now"
		}
		v.Texts["budget"] = "The budget is not known while the server can’t be polled."
		for _, name := range []string{"states", "applications", "sessions"} {
			v.Tables[name] = orNone(nil, "Not known now.")
		}
		return
	}
	slots, status := *s.Sample.Slots, activity.Summarise(s.Snapshot)
	v.Texts["slots"] = fmt.Sprintf("%d of %d", slots.Used, slots.Usable())
	v.Texts["slots_more"] = fmt.Sprintf("%d free; %d more reserved of %d", slots.Free(), slots.Reserved, slots.Max)
	v.Texts["new"] = strconv.FormatFloat(s.Sample.NewPerSecond, 'f', 1, 64)
	v.Texts["new_more"] = fmt.Sprintf("a second on the server; this process tried %.1f", s.connects)
	v.Texts["budget"] = web.Capitalized(s.budget.String()) + "."
	var states, applications [][]string
	for _, c := range status.States {
		states = append(states, []string{c.Name, strconv.Itoa(c.Count)})
	}
	for _, g := range status.Applications {
		applications = append(applications, []string{
			cmp.Or(g.Name, "(no name)"), strconv.Itoa(g.Sessions), strconv.Itoa(g.Active), strconv.Itoa(g.Idle),
			strconv.Itoa(g.IdleInTransaction), strconv.Itoa(g.Waiting), age(g.Oldest),
		})
	}
	v.Tables["states"] = states
	v.Tables["applications"] = atMost(applications, mostRows, "applications")
	v.Tables["sessions"] = orNone(atMost(sessionRows(s.Snapshot), mostSessions, "sessions"), "No client has a session.")
}

// age formats an age. Sessions whose age this role may not see have none.
func age(a activity.Age) string {
	if a == 0 {
		return "–"
	}
	return activity.Short(a.Duration())
}

// process formats this process's figures.
func (v *view) process(s *readings) {
	st := s.stat
	v.Texts["strategy"] = st.Strategy
	v.Texts["leases"] = fmt.Sprintf("%d of %d", st.Leases, st.Size)
	if st.Size == 0 {
		v.Texts["leases"] = strconv.Itoa(st.Leases)
	}
	v.Texts["leases_more"] = fmt.Sprintf("of the strategy %s; %d idle connections kept", st.Strategy, st.Idle)
	if st.Budget > 0 {
		v.Texts["leases_more"] += fmt.Sprintf("; of %d tickets %d own, %d others', %d free",
			st.Budget, st.Tickets, st.TicketsOthers, st.TicketsFree)
	}
	v.Texts["waiting"], v.Texts["waiting_more"] = strconv.Itoa(st.Waiting), "no request waits for a lease"
	if st.Waiting > 0 {
		v.Texts["waiting_more"] = "the first for " + activity.Short(st.OldestWait)
	}
	v.Texts["waits"], v.Texts["waits_more"] = s.waits.words()
	v.Tables["counters"] = nil
	for _, f := range db.Figures {
		if f.Title != "" {
			v.Tables["counters"] = append(v.Tables["counters"], []string{f.Title, strconv.FormatFloat(f.Value(&st), 'f', -1, 64)})
		}
	}
	v.Tables["settings"] = nil
	spec, _ := db.Lookup(st.Strategy)
	for _, x := range spec.Show(s.cfg) {
		v.Tables["settings"] = append(v.Tables["settings"], []string{x.Key, x.Text()})
	}
}

// replicas lists the servers of reads. Without replicas the table is omitted.
func (v *view) replicas(all []db.ReplicaStat) {
	for _, r := range all {
		state := "serves"
		if !r.Serves {
			state = "passed by: " + r.Why
		}
		v.Tables["replicas"] = append(v.Tables["replicas"], []string{
			r.Host, activity.Short(r.Lag), strconv.FormatInt(r.Reads, 10), strconv.FormatInt(r.Failed+r.Behind, 10), state,
		})
	}
}

// mostRows limits a table for readability.
const mostRows = 25

// holders lists the leases, oldest first, with the server's view of each backend.
func (v *view) holders(hs []db.Holder, s *readings) {
	states := map[string]string{}
	if s.seen() {
		for _, x := range s.Snapshot.Sessions {
			states[strconv.Itoa(int(x.PID))] = x.State
		}
	}
	var rows [][]string
	for _, h := range hs {
		pid := "connecting"
		if h.PID != 0 {
			pid = strconv.FormatUint(uint64(h.PID), 10)
		}
		rows = append(rows, []string{activity.Short(s.at.Sub(h.Since)), h.Where, pid, cmp.Or(states[pid], "–")})
	}
	v.Tables["holders"] = orNone(atMost(rows, mostRows, "holders"), "No request holds a lease.")
}

func atMost(rows [][]string, n int, what string) [][]string {
	if len(rows) <= n {
		return rows
	}
	return append(rows[:n:n], []string{fmt.Sprintf("… and %d more %s", len(rows)-n, what)})
}

// orNone replaces no rows by one cell with the sentence.
func orNone(rows [][]string, sentence string) [][]string {
	if len(rows) == 0 {
		return [][]string{{sentence}}
	}
	return rows
}

// clock formats a time of day in UTC, as everywhere on the page.
func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) }
