package report

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
)

func TestTheOriginIsTheFirstLineOfOurs(t *testing.T) {
	in := Incident{Err: errors.New("x"), Stack: Callers(0)}
	in.complete()
	contains(t, "origin", in.Origin, "incident_test.go:", " report.TestTheOriginIsTheFirstLineOfOurs")
	equal(t, "cause", in.Cause, InternalError)
}

func TestTheOriginOfAPanicIsWhereItPanicked(t *testing.T) {
	var in Incident
	func() {
		defer func() {
			in = Incident{Err: fmt.Errorf("panic: %v", recover()), Stack: Callers(0)}
		}()
		panics(nil)
	}()
	in.complete()
	contains(t, "origin", in.Origin, "report.panics")
}

//go:noinline
func panics(m map[string]int) { m["x"]++ }

type traced struct{ pcs []uintptr }

func (traced) Error() string           { return "traced" }
func (t traced) StackTrace() []uintptr { return t.pcs }

func TestAnErrorMayCarryItsOwnTraceback(t *testing.T) {
	in := Incident{Err: fmt.Errorf("wrapped: %w", traced{Callers(0)})}
	in.complete()
	contains(t, "origin", in.Origin, "incident_test.go:")
}

func TestWhatIsMissingIsDerived(t *testing.T) {
	in := Incident{Err: fmt.Errorf("x: %w", &db.ConnError{Cause: db.SlotsExhausted, Err: errors.New("y")})}
	in.complete()
	equal(t, "cause", in.Cause, string(db.SlotsExhausted))
	equal(t, "origin", in.Origin, "")
	equal(t, "has a time", in.At.IsZero(), false)
	var nothing Incident
	nothing.complete()
	equal(t, "cause of nothing", nothing.Cause, InternalError)
	sampleOf(&nothing)
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
		equal(t, raw, SafeQuery(raw), want)
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

func TestEveryCauseHasItsAdvice(t *testing.T) {
	for _, cause := range Causes() {
		if a, ok := advices[cause]; !ok || a.what == "" || a.why == "" || len(a.do) == 0 {
			t.Errorf("no advice for %q", cause)
		}
	}
	for code, cause := range causes {
		in := Incident{Err: fmt.Errorf("x: %w", &pgconn.PgError{Code: code})}
		in.complete()
		if a, ok := advices[in.Cause]; in.Cause != cause || !ok || !strings.Contains(a.what, code) || a.why == "" || len(a.do) == 0 {
			t.Errorf("%s is told as %q", code, in.Cause)
		}
	}
	late := Incident{Err: fmt.Errorf("x: %w", context.DeadlineExceeded)}
	late.complete()
	equal(t, "a deadline's cause", late.Cause, "deadline exceeded")
	lost := Incident{Err: &db.ConnError{Cause: db.ServerUnavailable, Err: &pgconn.PgError{Code: "57014"}}}
	lost.complete()
	equal(t, "a cause of package db comes first", lost.Cause, string(db.ServerUnavailable))
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
