package report

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	mail "github.com/wneessen/go-mail"

	"ddtb/config"
)

// message is one mail. However often it is tried, it keeps its id, so that a server that has it already, though
// its answer was lost, can tell.
type message struct {
	subject, plain, html string
	id                   string
	date                 time.Time
	from                 string
	to                   []string // who is still to get it
}

func newMessage(cfg config.Mail, hostname string, l letter) (*message, error) {
	plain, html, err := l.render()
	if err != nil {
		return nil, fmt.Errorf("could not write the mail: %w", err)
	}
	return &message{
		subject: l.Subject, plain: plain, html: html, date: time.Now(), from: cfg.From, to: cfg.Admins,
		id: rand.Text() + "@" + strings.Map(hostLetter, hostname),
	}, nil
}

func hostLetter(r rune) rune {
	if r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
		return r
	}
	return '-'
}

// msg is the message in the library's form, for the recipients to.
func (m *message) msg(to []string) (*mail.Msg, error) {
	out := mail.NewMsg()
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
	out.SetBodyString(mail.TypeTextPlain, m.plain)
	out.AddAlternativeString(mail.TypeTextHTML, m.html)
	return out, nil
}

// backend sends mails. When it fails, m.to is who did not get it yet and might, if it is tried again.
type backend interface {
	send(ctx context.Context, m *message) error
}

// newBackend is nil for "none".
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

// consoleBackend prints the text.
type consoleBackend struct{ to io.Writer }

func (b consoleBackend) send(_ context.Context, m *message) error {
	_, err := fmt.Fprintf(b.to, "%s\nFrom: %s\nTo: %s\nSubject: %s\nDate: %s\n\n%s%[1]s\n",
		strings.Repeat("-", 79), m.from, strings.Join(m.to, ", "), m.subject, m.date.Format(time.RFC1123Z), m.plain)
	return err
}

// fileBackend writes each mail to a file of its own, which mail programs open.
type fileBackend struct{ dir string }

func (b fileBackend) send(_ context.Context, m *message) error {
	msg, err := m.msg(m.to)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("can't make mail.dir: %w", err)
	}
	name := fmt.Sprintf("%s-%s.eml", m.date.UTC().Format("20060102T150405.000"), m.id[:8])
	f, err := os.OpenFile(filepath.Join(b.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("can't write to mail.dir: %w", err)
	}
	if _, err := msg.WriteTo(f); err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return fmt.Errorf("can't write to mail.dir: %w", err)
	}
	return f.Close()
}
