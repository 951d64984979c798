package report

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed" // mail.txt
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	gomail "github.com/wneessen/go-mail"

	"ddtb/config"
)

// mail is one mail and its attempts. All attempts have the same id, by which a server recognizes a duplicate.
type mail struct {
	notice        *notice
	subject, text string
	id            string
	date          time.Time
	from          string
	to            []string // recipients who have not received it yet

	tries int
	last  bool      // there are no more attempts
	next  time.Time // the time of the next attempt
}

//go:embed mail.txt
var mailText string

var mailTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"clock":    func(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") },
	"duration": duration,
	"requests": requests,
	"fact": func(name, value string) string { // a line, or nothing
		if value = strings.TrimSpace(value); value == "" {
			return ""
		}
		return "\n  " + name + ": " + value
	},
}).Parse(mailText))

// mailData is the data of mail.txt.
type mailData struct {
	*notice
	Title, Advice     string
	SQLState, Limit   string
	Hostname, BaseURL string
	Window, Settle    time.Duration
}

// newMail writes the mail of a notice.
func (r *Reporter) newMail(n *notice) *mail {
	d := mailData{notice: n, Title: n.Cause}
	switch {
	case n.Over:
		d.Title = "Recovered: connections again after " + duration(n.Last.Sub(n.Since)) + ", " + requests(n.Pending) + " failed"
		return r.write("mail", d)
	case n.key == outageKey && !n.Reported.IsZero(): // of many routes: none is named
	case n.Route != "":
		d.Title += " on " + n.Route
	}
	if !n.Reported.IsZero() {
		d.Title += fmt.Sprintf(": %d more", n.Pending)
	}
	if n.Example != nil {
		d.SQLState, d.Limit = n.Example.SQLState, n.Example.Limit
	}
	d.Advice = "internal error"
	if mailTemplates.Lookup(n.Cause) != nil {
		d.Advice = n.Cause
	}
	d.Advice = r.write(d.Advice, d).text
	return r.write("mail", d)
}

// write executes a template of mail.txt. Every mail passes the scrubber here.
func (r *Reporter) write(name string, d mailData) *mail {
	d.Hostname, d.BaseURL, d.Window, d.Settle = r.o.Hostname, r.o.BaseURL, r.o.Mail.Limit.Window, settle
	var text strings.Builder
	if err := mailTemplates.ExecuteTemplate(&text, name, d); err != nil {
		fmt.Fprintf(&text, "\nThis mail is incomplete: %v\n", err) // a bug of ours, and no reason to send nothing
	}
	return &mail{
		notice: d.notice, subject: line(r.scrub.clean(r.o.Mail.SubjectPrefix + d.Title + " (" + r.o.Hostname + ")")),
		text: r.scrub.clean(text.String()), id: rand.Text() + "@" + r.o.Hostname, date: time.Now(), from: r.o.Mail.From, to: r.o.Mail.Admins,
	}
}

// testMail is the mail of sendtestemail.
func (r *Reporter) testMail() *mail {
	return r.write("test", mailData{notice: &notice{group: group{Last: time.Now()}}, Title: "This is a test"})
}

func requests(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}

// duration is "10m", not "10m0s".
func duration(d time.Duration) string {
	s := strings.Replace(d.Round(time.Second).String(), "m0s", "m", 1)
	return strings.Replace(s, "h0m", "h", 1)
}

// msg is the mail in the library's form, for the recipients to.
func (m *mail) msg(to ...string) (*gomail.Msg, error) {
	out := gomail.NewMsg()
	if err := out.From(m.from); err != nil {
		return nil, fmt.Errorf("mail.from %q: %w", m.from, err)
	}
	if err := out.To(to...); err != nil {
		return nil, fmt.Errorf("mail.admins: %w", err)
	}
	out.Subject(m.subject)
	out.SetMessageIDWithValue(m.id)
	out.SetDateWithValue(m.date)
	out.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office answers
	out.SetGenHeader("X-Auto-Response-Suppress", "All")  // the same for Exchange
	out.SetBodyString(gomail.TypeTextPlain, m.text)
	return out, nil
}

// backend sends mails. After a failure, m.to contains the recipients for the next attempt.
type backend interface {
	send(ctx context.Context, m *mail) error
}

// newBackend returns nil for "none".
func newBackend(cfg config.Mail, console io.Writer) (backend, error) {
	switch cfg.Backend {
	case "", "none":
		return nil, nil
	case "smtp":
		return smtpBackend{cfg: cfg}, nil
	case "console":
		return consoleBackend{console}, nil
	case "file":
		return fileBackend{cfg.Dir}, nil
	}
	return nil, fmt.Errorf("mail.backend is %q: use smtp, console, file or none", cfg.Backend)
}

// consoleBackend prints mails.
type consoleBackend struct{ to io.Writer }

func (b consoleBackend) send(_ context.Context, m *mail) error {
	_, err := fmt.Fprintf(b.to, "%s\nFrom: %s\nTo: %s\nSubject: %s\nDate: %s\n\n%s%[1]s\n",
		strings.Repeat("-", 79), m.from, strings.Join(m.to, ", "), m.subject, m.date.Format(time.RFC1123Z), m.text)
	return err
}

// fileBackend writes each mail to a file of its own, which mail programs open.
type fileBackend struct{ dir string }

func (b fileBackend) send(_ context.Context, m *mail) error {
	msg, err := m.msg(m.to...)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if _, err := msg.WriteTo(&text); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s.eml", m.date.UTC().Format("20060102T150405.000"), m.id[:8])
	err = os.MkdirAll(b.dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, name), text.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("mail.dir: %w", err)
	}
	return nil
}
