package report

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
)

func TestTheOriginIsTheFirstLineOfOurs(t *testing.T) {
	f := newFailure(Incident{Err: fmt.Errorf("wrapped: %w", WithStack(errors.New("x")))})
	contains(t, "origin", f.origin(), "failure_test.go:", " report.TestTheOriginIsTheFirstLineOfOurs")
	equal(t, "cause", f.Cause, InternalError)
}

func TestTheOriginOfAPanicIsWhereItPanicked(t *testing.T) {
	var f *failure
	func() {
		defer func() {
			f = newFailure(Incident{Err: WithStack(fmt.Errorf("panic: %v", recover()))})
		}()
		panics(nil)
	}()
	contains(t, "origin", f.origin(), "report.panics")
}

//go:noinline
func panics(m map[string]int) { m["x"]++ }

func TestAnIncidentWithoutAnErrorIsAFailureToo(t *testing.T) {
	f := newFailure(Incident{})
	equal(t, "cause", f.Cause, InternalError)
	equal(t, "origin", f.origin(), "")
	equal(t, "has no time", f.At.IsZero(), false)
}

func TestAnOpenCircuitIsReportedAsWhatOpenedIt(t *testing.T) {
	f := newFailure(Incident{Err: fmt.Errorf("latest polls: %w", &db.ConnError{Cause: db.CircuitOpen, Opened: db.ServerUnavailable})})
	s := newState()
	s.add(f)
	n := s.due(outageKey, f.At, config.MailLimit{Window: time.Minute, PerHour: 1})
	equal(t, "cause", n.Cause, string(db.ServerUnavailable))
	equal(t, "by cause", n.ByCause(), "circuit open: 1")
}

func TestAFailureKeepsNoMoreThanItsBounds(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	in := Incident{Err: errors.New(long), Slots: long, Request: Request{long, long, long, long, long, long, long}}
	for range 1000 {
		in.Holders = append(in.Holders, long)
	}
	f := newFailure(in)
	equal(t, "holders", len(f.Holders), 20)
	if n := len(fmt.Sprintf("%+v", f)); n > maxText+29*(maxLine+10) {
		t.Errorf("it keeps %d bytes", n)
	}
}

func TestSafeQuery(t *testing.T) {
	for raw, want := range map[string]string{
		"":                         "",
		"page=2":                   "page=2",
		"q=my+search&page=12":      "page=12&q=…",
		"page=1234567":             "page=…",
		"pin=1234&otp=99":          "otp=…&pin=…",
		"a=1&a=x":                  "a=1&a=…",
		"%zz":                      "[unreadable]",
		"a%0d%0ab=1":               "a  b=1",
		"a%ffb=1":                  "a b=1",
		strings.Repeat("x=1&", 90): cut(strings.TrimSuffix(strings.Repeat("x=1&", 90), "&"), maxLine),
	} {
		equal(t, raw, safeQuery(raw), want)
	}
}

func TestNoHalfOfASecretIsLeftWhereATextIsCut(t *testing.T) {
	s := newScrubber([]config.Secret{"correct horse", "staple-battery"})
	for _, secret := range []string{"postgres://u:hunter2hunter2@h/db", "staple-battery", "password=hunter2hunter2"} {
		for i := range len(secret) {
			got := s.clean(cut(strings.Repeat("x ", maxText/2)[:maxText-i-len("…")]+secret+" and more", maxText))
			lacks(t, fmt.Sprintf("cut at %d", i), got, "hunter", "staple")
		}
		got := s.clean(cut(strings.Repeat("x", maxText-12)+"postgres://u:hunter2hunter2@h/db", maxText))
		lacks(t, "without a space", got, "hunt")
	}
}

func TestACutTextIsShortAndWhole(t *testing.T) {
	for n := 3; n < 40; n++ {
		got := cut("ä ö ü "+strings.Repeat("€", 40), n)
		if len(got) > n || !utf8.ValidString(got) {
			t.Errorf("%d: %q", n, got)
		}
	}
	equal(t, "a short one", cut("abc", 3), "abc")
}

func TestTheCauseIsWhatTheServerSaid(t *testing.T) {
	for code, cause := range map[string]string{
		"57014": "statement timeout", "55P03": "lock timeout", "25006": "read-only database", "53100": "disk full", "53200": "out of memory",
		"23505": InternalError, "42501": "permission denied",
	} {
		equal(t, code, CauseOf(fmt.Errorf("x: %w", &pgconn.PgError{Code: code})), cause)
	}
	equal(t, "a deadline", CauseOf(fmt.Errorf("x: %w", context.DeadlineExceeded)), deadlineExceeded)
	equal(t, "a query that was given up", CauseOf(fmt.Errorf("x: %w (conn closed)", db.ErrQueryTimeout)), deadlineExceeded)
	equal(t, "a cause of package db comes first",
		CauseOf(&db.ConnError{Cause: db.ServerUnavailable, Err: &pgconn.PgError{Code: "57014"}}), string(db.ServerUnavailable))
}

func TestEveryCauseHasItsAdvice(t *testing.T) {
	r := newReporter(Options{BaseURL: "https://polls.example.org"})
	for _, cause := range append(Causes(), manyKinds) {
		t.Run(cause, func(t *testing.T) {
			if mailTemplates.Lookup(cause) == nil {
				t.Fatal("there is none")
			}
			m := r.newMail(&notice{group: group{Cause: cause, Pending: 1, Failed: map[string]int{cause: 1}, Example: newFailure(Incident{})}})
			contains(t, "the mail", m.text, "\nWhy\n  ", "\nWhat to do\n  ", "\nWhat comes next\n  ")
			lacks(t, "the mail", m.text, "incomplete", redacted, "<no value>")
		})
	}
}

func TestAMailsHTMLShowsTheTextAndNoMarkupOfAStranger(t *testing.T) {
	r := newReporter(Options{BaseURL: "https://polls.example.org", Hostname: "web1"})
	in := Incident{Err: WithStack(errors.New("<img src=x>\n& more")), Request: Request{Method: "GET", Path: "/polls/<b>/", UserAgent: "`<i>`"}}
	m := r.newMail(&notice{group: group{Cause: string(db.SlotsExhausted), Pending: 1, Example: newFailure(in)}})
	contains(t, "the HTML", m.html(), ">slots exhausted</h1>", ">What to do</h2>", "<code>ddtb db-connections doctor</code>",
		"<div>request: GET /polls/&lt;b&gt;/</div>", "<div>&lt;img src=x&gt;</div>", "<code>&lt;i&gt;</code>", "<hr><div>ddtb on web1, https://polls.example.org</div>")
	lacks(t, "the HTML", m.html(), "<img", "<b>", "<i>")
}

func TestTheCommandsThatAMailAdvisesAreCompleted(t *testing.T) {
	r := newReporter(Options{Complete: func(text string) string {
		return strings.ReplaceAll(text, "`ddtb ", "`/opt/ddtb --dsn 'postgres://app@127.0.0.1:5432/app?passfile=/x/pgpass' ")
	}})
	m := r.newMail(&notice{group: group{Cause: string(db.SlotsExhausted), Pending: 1}})
	contains(t, "the mail", m.text, "pgpass' db-connections doctor`", "`/opt/ddtb --dsn 'postgres://app@127.0.0.1:5432/app?passfile=/x/pgpass' db-connections close-idle`")
	lacks(t, "the mail", m.text, "`ddtb")
}

func TestASessionThatTheServerEndedIsNotCalledACrash(t *testing.T) {
	r := newReporter(Options{})
	for code, why := range map[string]string{
		"57P01": "An administrator's command ended the session", "57P02": "A process of the server crashed",
		"57P03": "The server is starting up", "57P05": "idle_session_timeout", "25P03": "idle_in_transaction_session_timeout",
		"": "It was restarted, it crashed, or the network", "08006": "The server was restarted, it crashed, or the network",
	} {
		t.Run(code, func(t *testing.T) {
			err := &db.ConnError{Cause: db.ServerUnavailable, Err: &pgconn.PgError{Code: code}}
			f := newFailure(Incident{Err: err})
			m := r.newMail(&notice{group: group{Cause: f.Cause, Pending: 1, Example: f}})
			contains(t, "the mail", m.text, strings.Replace(why, "It was", "The server was", 1))
		})
	}
}

func TestEachLimitOfConnectionsHasItsRemedy(t *testing.T) {
	r := newReporter(Options{})
	for routine, remedy := range map[string]string{
		"InitializeSessionUserId": "ALTER ROLE … CONNECTION LIMIT", "CheckMyDatabase": "ALTER DATABASE … CONNECTION LIMIT",
		"InitProcess": "Raising max_connections instead needs a restart",
	} {
		t.Run(routine, func(t *testing.T) {
			err := &db.ConnError{Cause: db.SlotsExhausted, Server: "db2:5432", Err: &pgconn.PgError{Code: "53300", Routine: routine}}
			f := newFailure(Incident{Err: err})
			m := r.newMail(&notice{group: group{Cause: f.Cause, Pending: 1, Example: f}})
			contains(t, "the mail", m.text, remedy, "server: db2:5432")
			equal(t, "remedies by a setting of the server", strings.Count(m.text, "CONNECTION LIMIT …;")+strings.Count(m.text, "Raising max_connections"), 1)
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("postgres://u:p@h/db password='x")
	f.Fuzz(func(t *testing.T, text string) {
		got := newScrubber(nil).clean("://u:hunter2@h " + line(text))
		if strings.Contains(got, "hunter2") || !utf8.ValidString(got) && utf8.ValidString(text) {
			t.Errorf("%q", got)
		}
	})
}
