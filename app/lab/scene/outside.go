package scene

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp" // a real SMTP conversation, for the scenario that sends mails

	"ddtb/app/report/envelope"
	"ddtb/config"
)

// Mailbox is a mail server that counts mails.
type Mailbox struct {
	Config config.Mail // the client's settings
	mails  atomic.Int64
}

// Mails returns the number of mails received.
func (m *Mailbox) Mails() int { return int(m.mails.Load()) }

// Mailbox starts a mail server.
func (s *Stage) Mailbox() *Mailbox {
	m := &Mailbox{Config: config.Default().Mail}
	l, err := s.listen()
	if err != nil {
		s.Failed(err)
		return m
	}
	addr := l.Addr().(*net.TCPAddr)
	m.Config.Backend, m.Config.Host, m.Config.Port = "smtp", "127.0.0.1", addr.Port
	m.Config.TLS, m.Config.From, m.Config.Admins = "none", "shop@localhost", []string{"admin@localhost"}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return session{m}, nil }))
	server.Domain, server.ErrorLog = "localhost", log.New(io.Discard, "", 0)
	s.serve(func() { _ = server.Serve(l) }, func() { _ = server.Close() }) // the error is that of closing it
	return m
}

// session accepts every mail.
type session struct{ box *Mailbox }

func (session) Reset()                               {}
func (session) Logout() error                        { return nil }
func (session) Mail(string, *smtp.MailOptions) error { return nil }
func (session) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (s session) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	s.box.mails.Add(1)
	return err
}

// Sentry is a stand-in for Sentry.
type Sentry struct {
	DSN  string
	sink *envelope.Sink
}

// Accepted returns how many accepted events contain the text.
func (t *Sentry) Accepted(text string) int {
	return countIf(t.sink.Items("event"), func(e envelope.Item) bool { return bytes.Contains(e.Payload, []byte(text)) })
}

// Sentry starts the stand-in. It accepts that many events, up to 200, and answers 429 to the rest.
func (s *Stage) Sentry(quota int) *Sentry {
	t := &Sentry{sink: &envelope.Sink{Quota: quota}}
	t.DSN = strings.Replace(s.Web(t.sink.ServeHTTP), "http://", "http://key@", 1) + "/1"
	return t
}

// Web starts a web server, and returns its address.
func (s *Stage) Web(h http.HandlerFunc) (url string) {
	l, err := s.listen()
	if err != nil {
		s.Failed(err)
		return "http://127.0.0.1:1"
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	s.serve(func() { _ = server.Serve(l) }, func() { _ = server.Close() }) // the error is that of closing it
	return fmt.Sprintf("http://%s", l.Addr())
}

// Slow starts a web service that takes d to respond. call calls it.
func (s *Stage) Slow(d time.Duration) (call func(ctx context.Context) error) {
	url := s.Web(func(_ http.ResponseWriter, r *http.Request) { _ = Sleep(r.Context(), d) })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	s.Afterwards(client.CloseIdleConnections)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
}

func (s *Stage) listen() (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(s.ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("no port is free on 127.0.0.1: %w", err)
	}
	return l, nil
}

// serve runs a server until the end of the half.
func (s *Stage) serve(run, stop func()) {
	ended := make(chan struct{})
	go func() { defer close(ended); run() }()
	s.Afterwards(func() { stop(); <-ended })
}
