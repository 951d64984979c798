package report

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/logtest"
)

// child makes this test binary a process that fails and crashes: see TestAProcessThatRestartsInALoopSendsOneMail.
var child = flag.String("child", "", "report failures from this process, with its state and mails in this directory, and crash")

func TestMain(m *testing.M) {
	flag.Parse()
	if *child != "" {
		beChild(*child)
	}
	goleak.VerifyTestMain(m)
}

// busy is a failure to connect, as a request meets it.
func busy(route string) Incident { return unreachable(route, db.PoolTimeout) }

func unreachable(route string, cause db.Cause) Incident {
	return Incident{
		Err: fmt.Errorf("latest polls: %w", WithStack(&db.ConnError{
			Cause: cause, Strategy: "pool", Waited: 10 * time.Second, Size: 3, Leases: 3, Waiting: 11, Err: errors.New("refused"),
		})),
		Request: Request{Method: "GET", Route: route, Path: route, ID: "id-1"},
		Holders: []string{"12.3 s  handlers.go:7 polls.(*Handlers).Vote"},
	}
}

// bug is a failure of another group for each n.
func bug(n int) Incident {
	return Incident{Err: WithStack(errors.New("index out of range")), Request: Request{Route: fmt.Sprintf("/polls/%d/", n)}}
}

func mailTo(backend string) config.Mail {
	m := config.Default().Mail
	m.Backend, m.Admins, m.Host, m.TLS = backend, []string{"ops@example.org"}, "127.0.0.1", "none"
	return m
}

func quiet(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func open(t testing.TB, o Options) *Reporter {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet(t)
	}
	o.Hostname, o.BaseURL = "web1", "https://polls.example.org"
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, r) })
	return r
}

func shut(t testing.TB, r *Reporter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
}

// console collects what the backend of that name prints.
type console struct{ logtest.Log }

// subjects of the mails, in order.
func (c *console) subjects() (out []string) {
	for _, l := range strings.Split(c.String(), "\n") {
		if s, ok := strings.CutPrefix(l, "Subject: "); ok {
			out = append(out, s)
		}
	}
	return out
}

// eventually polls, since the mail server and Sentry are across the network.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		<-tick.C
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func contains(t testing.TB, what, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, got)
		}
	}
}

func lacks(t testing.TB, what, got string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(got, s) {
			t.Errorf("%s tells %q:\n%s", what, s, got)
		}
	}
}

// received is a mail as its reader sees it.
type received struct {
	subject, from, to, id string
	header                netmail.Header
	text, html            string
}

func parse(t testing.TB, raw []byte) received {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v in\n%s", err, raw)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		t.Fatal(err)
	}
	out := received{subject: subject, from: m.Header.Get("From"), to: m.Header.Get("To"), id: m.Header.Get("Message-ID"), header: m.Header}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, to := range []*string{&out.text, &out.html} {
		part, err := parts.NextPart() // decodes quoted-printable
		if err != nil {
			t.Fatalf("%v in\n%s", err, raw)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		*to = string(body)
	}
	return out
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// pass has time pass in a synctest bubble.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the bubble's time
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	var c net.ListenConfig
	l, err := c.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
