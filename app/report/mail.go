package report

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed" // mail.txt
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	gomail "github.com/wneessen/go-mail"

	"ddtb/config"
)

// mail is one mail, and the data of mail.txt. All attempts have the same id, by which a server recognizes a duplicate.
type mail struct {
	*notice
	Options
	Title           string
	SQLState, Limit string // of the example
	Settle          time.Duration

	subject, text, id string
	date              time.Time
	to                []string // recipients who have not received it yet
	refused           []error  // by recipients who will not receive it
	reached           bool     // a recipient has received it
	err               error    // of the last attempt
}

//go:embed mail.txt
var mailText string

var mailTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"clock":    func(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") },
	"duration": duration,
	"requests": func(n int) string { return count(n, "request") },
	"fact": func(name, value string) string { // a line, or nothing
		if value = strings.TrimSpace(value); value == "" {
			return ""
		}
		return "\n  " + name + ": " + value
	},
}).Parse(mailText))

// newMail writes the mail of a notice.
func (r *Reporter) newMail(n *notice) *mail {
	m := &mail{notice: n, Title: n.Cause}
	if n.Over {
		m.Title = "Recovered: connections again after " + duration(n.Served.Sub(n.Since)) + ", " + count(n.Pending, "request") + " failed"
		return r.write(m, "recovery", "foot")
	}
	again := !n.Reported.IsZero()
	if n.Route != "" && !(again && n.key == outageKey) { // which is of many routes
		m.Title += " on " + n.Route
	}
	if again {
		m.Title += fmt.Sprintf(": %d more", n.Pending)
	}
	if n.Example != nil {
		m.SQLState, m.Limit = n.Example.SQLState, n.Example.Limit
	}
	advice := n.Cause
	if mailTemplates.Lookup(advice) == nil {
		advice = InternalError
	}
	return r.write(m, "failures", advice, "details", "foot")
}

// testMail is the mail of sendtestemail.
func (r *Reporter) testMail() *mail {
	return r.write(&mail{notice: &notice{group: group{Last: time.Now()}}, Title: "This is a test"}, "test", "foot")
}

// write completes a mail by templates of mail.txt. Every mail passes the scrubber here.
func (r *Reporter) write(m *mail, parts ...string) *mail {
	m.Options, m.Settle = r.o, settle
	var text strings.Builder
	for _, part := range parts {
		if err := mailTemplates.ExecuteTemplate(&text, part, m); err != nil {
			fmt.Fprintf(&text, "\nThis mail is incomplete: %v\n", err) // a bug of ours, and no reason to send nothing
		}
	}
	m.subject = line(r.scrub.clean(r.o.Mail.SubjectPrefix + m.Title + " (" + r.o.Hostname + ")"))
	m.text = r.o.Complete(r.scrub.clean(m.Title + "\n" + text.String())) // in this order: a completed command has no secret, but an address
	m.id, m.date, m.to = rand.Text()+"@"+r.o.Hostname, time.Now(), r.o.Mail.Admins
	return m
}

// duration is "10m", not "10m0s".
func duration(d time.Duration) string {
	s := strings.Replace(d.Round(time.Second).String(), "m0s", "m", 1)
	return strings.Replace(s, "h0m", "h", 1)
}

// msg is the mail in the library's form, for the recipients to.
func (m *mail) msg(to ...string) (*gomail.Msg, error) {
	out := gomail.NewMsg()
	if err := out.From(m.Mail.From); err != nil {
		return nil, fmt.Errorf("mail.from %q: %w", m.Mail.From, err)
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
	out.AddAlternativeString(gomail.TypeTextHTML, m.html())
	return out, nil
}

var quotedCommand = regexp.MustCompile("`([^`]+)`")

// html is the text for a program that shows HTML: its headings stand out, and its commands can be copied.
func (m *mail) html() string {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html><html lang="en"><body style="font:15px/1.5 sans-serif;white-space:pre-wrap;overflow-wrap:anywhere">`)
	text, foot, _ := strings.Cut(m.text, "\n-- \n")
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		escaped := quotedCommand.ReplaceAllString(html.EscapeString(strings.TrimPrefix(line, "  ")), "<code>$1</code>")
		switch {
		case i == 0:
			fmt.Fprintf(&b, "<h1 style=\"font-size:20px\">%s</h1>", escaped)
		case strings.HasPrefix(line, " "):
			fmt.Fprintf(&b, "<div>%s</div>", escaped)
		case line != "":
			fmt.Fprintf(&b, "<h2 style=\"font-size:16px;margin:20px 0 4px\">%s</h2>", escaped)
		}
	}
	fmt.Fprintf(&b, "<hr><div>%s</div></body></html>\n", html.EscapeString(strings.TrimSpace(foot)))
	return b.String()
}

// sender sends a mail. After a failure, m.to contains the recipients for the next attempt.
type sender func(ctx context.Context, m *mail) error

// newSender returns nil for the backend "none".
func newSender(cfg config.Mail, console io.Writer) sender {
	switch cfg.Backend {
	case "smtp":
		return smtpBackend{cfg: cfg}.send
	case "console":
		return func(_ context.Context, m *mail) error { return m.print(console) }
	case "file":
		return func(_ context.Context, m *mail) error { return m.save(cfg.Dir) }
	}
	return nil
}

func (m *mail) print(to io.Writer) error {
	_, err := fmt.Fprintf(to, "%s\nFrom: %s\nTo: %s\nSubject: %s\nDate: %s\n\n%s%[1]s\n",
		strings.Repeat("-", 79), m.Mail.From, strings.Join(m.to, ", "), m.subject, m.date.Format(time.RFC1123Z), m.text)
	return err
}

// save writes the mail to a file of its own, which mail programs open.
func (m *mail) save(dir string) error {
	msg, err := m.msg(m.to...)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if _, err := msg.WriteTo(&text); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s.eml", m.date.UTC().Format("20060102T150405.000"), m.id[:8])
	err = os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), text.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("mail.dir: %w", err)
	}
	return nil
}
