package app_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/labstack/echo/v4"

	"ddtb/app/report/envelope"
	"ddtb/config"
	"ddtb/db/dbtest"
)

// mailbox is a real SMTP server that takes every mail.
type mailbox struct {
	mu    sync.Mutex
	mails []string
	port  int
}

func newMailbox(t testing.TB) *mailbox {
	t.Helper()
	m := &mailbox{}
	server := smtp.NewServer(m)
	server.Domain, server.ErrorLog = "localhost", log.New(io.Discard, "", 0)
	l := listen(t)
	m.port = l.Addr().(*net.TCPAddr).Port
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); _ = l.Close(); <-done })
	return m
}

func (m *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return letterbox{m}, nil }

type letterbox struct{ *mailbox }

func (letterbox) Reset()                               {}
func (letterbox) Logout() error                        { return nil }
func (letterbox) Mail(string, *smtp.MailOptions) error { return nil }
func (letterbox) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (l letterbox) Data(r io.Reader) error {
	mail, err := io.ReadAll(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mails = append(l.mails, string(mail))
	return err
}

// all are the mails that came.
func (m *mailbox) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.mails...)
}

// withListeners is a change of the configuration after which mails and events go to real servers inside the test.
func withListeners(t testing.TB) (set func(*config.Config), mails *mailbox, events *envelope.Sink) {
	t.Helper()
	mails, events = newMailbox(t), &envelope.Sink{}
	sentry := httptest.NewServer(events)
	t.Cleanup(sentry.Close)
	return func(c *config.Config) {
		c.Sentry.DSN = config.Secret(strings.Replace(sentry.URL, "://", "://thekey@", 1) + "/7")
		c.Mail.Backend, c.Mail.Host, c.Mail.Port, c.Mail.TLS = "smtp", "127.0.0.1", mails.port, "none"
		c.Mail.Admins = []string{"ops@example.org"}
	}, mails, events
}

// innermost is the function of the event's innermost frame.
func innermost(t *testing.T, payload []byte) string {
	t.Helper()
	var e struct {
		Exception []struct {
			Stacktrace struct {
				Frames []struct{ Function string }
			}
		}
	}
	if err := json.Unmarshal(payload, &e); err != nil || len(e.Exception) == 0 || len(e.Exception[0].Stacktrace.Frames) == 0 {
		t.Fatalf("no stack: %v\n%s", err, payload)
	}
	frames := e.Exception[0].Stacktrace.Frames
	return frames[len(frames)-1].Function
}

func TestABugIsOnePageOneMailAndOneEventWithItsLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ path, function, line string }{
		"an error": {"/error/", "failOnPurpose", "index.go:"},
		"a panic":  {"/panic/of-the-runtime", "init.func", "failure_test.go:"},
	} {
		t.Run(name, func(t *testing.T) {
			set, mails, events := withListeners(t)
			s := siteOn(t, dbtest.Config(t), set)
			s.AddPage("/panic/of-the-runtime", func(c echo.Context) error { panics["/panic/of-the-runtime"](s, c); return nil })
			a := s.get(c.path, "Accept", "text/html")
			mustContain(t, a, 500, "Something went wrong on our side")
			dbtest.Eventually(t, "one mail and one event come", func() bool { return len(mails.all()) == 1 && len(events.Items("")) == 1 })
			if f := innermost(t, events.Items("event")[0].Payload); !strings.Contains(f, c.function) {
				t.Errorf("the event's innermost function is %q", f)
			}
			for _, words := range []string{c.line, "internal error", a.header("X-Request-Id")} {
				if mail := strings.ReplaceAll(mails.all()[0], "=\r\n", ""); !strings.Contains(mail, words) {
					t.Errorf("the mail lacks %q:\n%s", words, mail)
				}
			}
			s.mustBeIdle()
		})
	}
}

func TestAReloadedPasswordIsNeverSent(t *testing.T) {
	t.Parallel()
	set, mails, events := withListeners(t)
	s := siteOn(t, dbtest.Config(t), set)
	s.AddPage("/tells", func(echo.Context) error { return errors.New("they know later-pass-1") })
	s.reconfigure(func(c *config.Database) { c.Password = "later-pass-1" })
	mustContain(t, s.get("/tells"), 500, "")
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if len(mails.all()) != 1 || len(events.Items("")) != 1 {
		t.Fatalf("%d mails and %d events", len(mails.all()), len(events.Items("")))
	}
	told := strings.ReplaceAll(mails.all()[0], "=\r\n", "") + string(events.Items("event")[0].Payload)
	if strings.Contains(told, "later-pass") || strings.Count(told, "they know [redacted]") < 2 { // mail and event
		t.Error(told)
	}
}

func TestTwoHundredFailuresAreTwoHundredHonestAnswersOneMailAndOneEvent(t *testing.T) {
	t.Parallel()
	set, mails, events := withListeners(t)
	s := siteOn(t, dbtest.Config(t), set)
	s.manyTimes(200, "/error/", func(a answer) {
		if a.StatusCode != 500 || !strings.Contains(a.body, "Something went wrong on our side") {
			t.Errorf("%s\n%s", a.Status, a.body)
		}
	})
	if err := s.stop(); err != nil { // which sends what is to be sent
		t.Error(err)
	}
	if m, e := len(mails.all()), len(events.Items("")); m != 1 || e != 1 {
		t.Errorf("%d mails and %d events", m, e)
	}
	if n := s.log.Count("level=ERROR", "path=/error/"); n != 200 {
		t.Errorf("%d lines in the log", n)
	}
}

func TestTheMailAboutAPoolThatIsOutNamesTheLineThatWaitedTheHolderAndTheServersSlots(t *testing.T) {
	t.Parallel()
	set, mails, events := withListeners(t)
	s := siteOn(t, dbtest.Config(t), func(c *config.Config) {
		set(c)
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize, d.Pool.Timeout = 1, time.Second })
	})
	dbtest.Eventually(t, "the slots are counted", func() bool { return s.metrics()["ddtb_slots_used"] > 0 })
	lease, err := s.DB().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	mustContain(t, s.get("/polls/"), 503, "pool timeout")
	dbtest.Eventually(t, "one mail and one event come", func() bool { return len(mails.all()) == 1 && len(events.Items("")) == 1 })
	mail := strings.ReplaceAll(mails.all()[0], "=\r\n", "")
	for _, words := range []string{
		"line: store.go:", "\r\n    handlers.go:", "holder: ", "reports_test.go:", "s before the failure, ", " usable used (", "; 1 of 1 leases were out, and 0 other requests waited",
	} {
		if !strings.Contains(strings.ReplaceAll(mail, "=3D", "="), words) {
			t.Errorf("the mail lacks %q:\n%s", words, mail)
		}
	}
	e := events.Items("event")[0].Payload
	if f := innermost(t, e); f != "(*Store).Latest" {
		t.Errorf("the event's innermost function is %q", f)
	}
	if !strings.Contains(string(e), "usable used (") || strings.Contains(string(e), `"sqlstate":""`) {
		t.Errorf("the event's figures: %s", e)
	}
}

// manyTimes asks n times, 20 at a time, each on a connection of its own.
func (s *site) manyTimes(n int, path string, look func(answer)) {
	s.t.Helper()
	var wg sync.WaitGroup
	places := make(chan struct{}, 20)
	for range n {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			a, err := s.send(s.t.Context(), fresh, http.MethodGet, path, nil, "Accept", "application/json")
			if err != nil {
				s.t.Error(err)
				return
			}
			look(a)
		})
	}
	wg.Wait()
}

func TestAnOutageIsTwoHundredHonestAnswersOneMailOneEventAndOneMailOfItsEnd(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: smallSlots})
	set, mails, events := withListeners(t)
	s := siteOn(t, server.Config(t), func(c *config.Config) { set(c); setDatabase(c, persistent) })
	s.loadDemo()
	taken, _ := s.oneByOne(2 * smallSlots) // uses up the slots
	if len(taken) < smallFree-1 {
		t.Fatalf("%d were served", len(taken))
	}
	s.manyTimes(200, "/polls/", func(a answer) { mustBeExhausted(t, a) })
	dbtest.Eventually(t, "somebody is told", func() bool { return len(mails.all()) == 1 && len(events.Items("")) == 1 })
	first := strings.ReplaceAll(mails.all()[0], "=\r\n", "")
	for _, words := range []string{"Subject: [ddtb] slots exhausted on /polls/", "To: <ops@example.org>", "`bin/ddtb db-connections doctor`"} {
		if !strings.Contains(first, words) {
			t.Errorf("the mail lacks %q:\n%s", words, first)
		}
	}
	if e := string(events.Items("event")[0].Payload); !strings.Contains(e, `"cause":"slots exhausted"`) || innermost(t, []byte(e)) == "" {
		t.Errorf("the event: %s", e)
	}
	mustContain(t, s.get("/admin/login/"), 200, "<h1>") // without a query, so it ends no outage
	<-time.After(6 * time.Second)
	if n := len(mails.all()); n != 1 {
		t.Errorf("%d mails:\n%s", n, mails.all()[n-1])
	}
	s.reconfigure(pool)
	mustContain(t, s.get("/polls/"), 200, "<h1>")
	dbtest.Eventually(t, "its end is told", func() bool { return len(mails.all()) == 2 })
	failed := int(s.metrics()[`ddtb_failures_total{cause="slots exhausted"}`])
	s.mustWarn("No database connection: slots exhausted", failed)
	if failed < 200 || !strings.Contains(mails.all()[1], "Recovered: connections again") || !strings.Contains(mails.all()[1], fmt.Sprint(failed, " requests failed")) {
		t.Errorf("%d failed, and the second mail is\n%s", failed, mails.all()[1])
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if m, e := len(mails.all()), len(events.Items("")); m != 2 || e != 1 {
		t.Errorf("%d mails and %d events", m, e)
	}
}

// stream writes until goOn.
func stream(c echo.Context, goOn <-chan struct{}) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-goOn:
			_, err := io.WriteString(c.Response(), "end\n")
			return err
		case <-tick.C:
			if _, err := io.WriteString(c.Response(), "more\n"); err != nil {
				return err
			}
			c.Response().Flush()
		}
	}
}

func (s *site) streamWithOpenRows(c echo.Context, goOn <-chan struct{}) error {
	rows, err := s.DB().Query(c.Request().Context(), "SELECT generate_series(1, 3)")
	if err != nil {
		return err
	}
	defer rows.Close()
	return stream(c, goOn)
}

func (s *site) streamAfterAQuery(c echo.Context, goOn <-chan struct{}) error {
	if _, err := s.DB().Exec(c.Request().Context(), "SELECT 1"); err != nil {
		return err
	}
	return stream(c, goOn)
}

// A stream is fine as long as it holds nothing.
func TestAStreamThatHoldsALeaseIsFlaggedWithItsLine(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MinSize, d.Pool.LeakAfter = 2, time.Second })
	})
	goOn := make(chan struct{})
	s.AddPage("/stream/rows", func(c echo.Context) error { return s.streamWithOpenRows(c, goOn) })
	s.AddPage("/stream/nothing", func(c echo.Context) error { return s.streamAfterAQuery(c, goOn) })
	dbtest.Eventually(t, "both have a connection, which takes time", func() bool { return s.DB().Stat().Idle >= 2 })
	var wg sync.WaitGroup
	for _, path := range []string{"/stream/rows", "/stream/nothing"} {
		wg.Go(func() {
			if a, err := s.send(t.Context(), fresh, http.MethodGet, path, nil); err != nil || !strings.HasSuffix(a.body, "end\n") {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	flagged := func() []string { return s.log.Lines("level=WARN", "is it a leak, a stream, or a slow request?") }
	dbtest.Eventually(t, "the log flags it", func() bool { return len(flagged()) > 0 })
	close(goOn)
	wg.Wait()
	dbtest.Eventually(t, "the log says that it came back", func() bool { return s.log.Count("the lease that was held for long was released") == 1 })
	if lines := flagged(); len(lines) != 1 || !strings.Contains(lines[0], "reports_test.go:") || !strings.Contains(lines[0], "streamWithOpenRows") ||
		s.DB().Stat().Leaked != 1 {
		t.Errorf("%d leaks are counted, and flagged are %q", s.DB().Stat().Leaked, lines)
	}
}
