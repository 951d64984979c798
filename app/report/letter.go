package report

import (
	"bytes"
	"embed"
	"fmt"
	htmltemplate "html/template"
	"runtime"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
)

//go:embed templates
var templateFS embed.FS

var (
	textLetter = texttemplate.Must(texttemplate.New("letter.txt").
			Funcs(texttemplate.FuncMap{"inc": inc}).ParseFS(templateFS, "templates/letter.txt"))
	htmlLetter = htmltemplate.Must(htmltemplate.ParseFS(templateFS, "templates/letter.html"))
)

// letter is a mail's content, once for both of its forms.
type letter struct {
	Subject  string
	Title    string
	Good     bool // it is over
	Sections []section
	Foot     string
	Link     string // to the application; "": not known
}

type section struct {
	Title string
	Text  []string // paragraphs
	Steps []string // to do, in order
	Facts []fact
	Code  []string // lines
}

type fact struct{ Name, Value string }

// desk knows what every letter of this process says.
type desk struct {
	prefix   string
	hostname string
	baseURL  string
	scrub    *scrubber
}

// failure writes about failed requests. s is the best known example of them, or nil.
func (d desk) failure(n notice, s *sample) letter {
	what := headline(n)
	a := adviceFor(n.Cause)
	l := d.letter(what, []section{
		{Title: "What happened", Text: append(d.count(n), a.what)},
		{Title: "Why", Text: []string{a.why}},
		{Title: "What to do", Steps: d.located(a.do)},
	})
	if s != nil {
		l.Sections = append(l.Sections, d.request(n, s), d.database(s), d.traceback(s))
	} else if n.errText != "" {
		l.Sections = append(l.Sections, section{Title: "The error", Code: lines(d.scrub.clean(n.errText))})
	}
	l.Sections = append(l.Sections, section{Title: "What comes next", Text: d.outlook(n)})
	l.Sections = slices.DeleteFunc(l.Sections, section.empty)
	return l
}

// recovery writes that requests get their connections again.
func (d desk) recovery(n notice) letter {
	lasted := duration(n.last.Sub(n.since))
	l := d.letter("Recovered: connections again after "+lasted+", "+requests(n.count)+" failed", nil)
	l.Good = true
	var causes []fact
	for cause, count := range n.outage.Failed {
		causes = append(causes, fact{cause, requests(count)})
	}
	slices.SortFunc(causes, func(a, b fact) int { return strings.Compare(a.Name, b.Name) })
	l.Sections = []section{
		{
			Title: "What happened",
			Text: []string{
				fmt.Sprintf("Requests get a connection to the database again. The outage lasted %s: the first request failed at %s, the last one at %s.",
					lasted, clock(n.since), clock(n.last)),
				requests(n.count) + " failed in it. Each was answered with 503 and Retry-After.",
			},
			Facts: causes,
		},
		{Title: "What to do", Text: []string{
			"Nothing now: no restart is needed. Look for the reason in the mails from when it began, while the log is fresh.",
		}},
		{Title: "What comes next", Text: d.capped(n)},
	}
	l.Sections = slices.DeleteFunc(l.Sections, section.empty)
	return l
}

// test is the letter of sendtestemail.
func (d desk) test() letter {
	return d.letter("This is a test", []section{
		{Title: "What happened", Text: []string{
			"Somebody asked for a test mail at " + clock(time.Now()) + ", and it arrived: the mail settings work.",
			"Nothing failed.",
		}},
	})
}

func (d desk) letter(title string, sections []section) letter {
	return letter{
		Subject: line(d.prefix + title + " (" + d.hostname + ")"), Title: title, Sections: sections,
		Foot: "ddtb on " + d.hostname, Link: d.baseURL,
	}
}

func headline(n notice) string {
	what := n.Cause
	if n.Route != "" {
		what += " on " + n.Route
	}
	if !n.previous.IsZero() {
		what += fmt.Sprintf(": %d more", n.count)
	}
	return what
}

// count says how many requests failed, since when, and how that was told so far.
func (d desk) count(n notice) []string {
	var text []string
	switch {
	case n.count == 1 && n.previous.IsZero():
		text = append(text, "A request failed at "+clock(n.since)+". It is the first of its kind, and this is the only mail about it for now.")
	case n.previous.IsZero():
		text = append(text, fmt.Sprintf("%s failed between %s and %s.", requests(n.count), clock(n.since), clock(n.last)))
	default:
		text = append(text, fmt.Sprintf("%d more %s failed since the last mail about it (%s): the first at %s, the last at %s.",
			n.count, plural(n.count), clock(n.previous), clock(n.since), clock(n.last)))
	}
	if n.held {
		text = append(text, "This mail comes late: the cap on mails an hour was reached.")
	}
	if o := n.outage; o != nil && o.total() > n.count {
		text = append(text, fmt.Sprintf("In this outage %s could get no connection so far, since %s and over all routes and causes.",
			requests(o.total()), clock(o.Since)))
	}
	return text
}

// outlook says when to expect mail, so that silence can be understood.
func (d desk) outlook(n notice) []string {
	text := fmt.Sprintf("Further failures of this kind are counted, and told together, at the earliest in %s.", duration(n.window))
	switch {
	case n.outage != nil:
		text += fmt.Sprintf(" One mail tells the end, when requests have succeeded for %s.", duration(settle))
	case n.noConn:
		text += " Requests get connections again by now."
	}
	return append([]string{text}, d.capped(n)...)
}

func (d desk) capped(n notice) []string {
	if n.capped.IsZero() {
		return nil
	}
	return []string{"The cap on mails an hour is reached with this one: whatever fails until " + clock(n.capped) +
		" is counted, and told after that."}
}

func (d desk) request(n notice, s *sample) section {
	title := "The request"
	if !n.previous.IsZero() {
		title = "The latest of them that was seen"
	}
	target := s.request.Path
	if s.request.Query != "" {
		target += "?" + s.request.Query
	}
	return section{Title: title, Facts: d.facts(
		fact{"request", strings.TrimSpace(s.request.Method + " " + target)},
		fact{"route", s.request.Route},
		fact{"at", clock(s.at)},
		fact{"id in the log", s.request.ID},
		fact{"client", s.request.ClientIP},
		fact{"browser", s.request.UserAgent},
		fact{"line of code", n.Origin},
	)}
}

func (d desk) database(s *sample) section {
	sec := section{Title: "The database, as far as known", Facts: d.facts(
		fact{"strategy", s.strategy},
		fact{"slots", s.slots},
		fact{"waiting", s.waiters},
		fact{"SQLSTATE", s.sqlstate},
	)}
	for i, h := range s.holders {
		sec.Facts = append(sec.Facts, fact{fmt.Sprintf("holder %d", i+1), d.scrub.clean(h)})
	}
	return sec
}

func (d desk) traceback(s *sample) section {
	code := lines(d.scrub.clean(s.errText))
	for _, f := range frames(s.stack) {
		code = append(code, "  "+traceLine(f))
	}
	return section{Title: "The error, and its first traceback", Code: code}
}

func traceLine(f runtime.Frame) string {
	return fmt.Sprintf("%s:%d  %s", last(f.File, 2), f.Line, last(f.Function, 1))
}

func (d desk) facts(all ...fact) []fact {
	all = slices.DeleteFunc(all, func(f fact) bool { return f.Value == "" })
	for i := range all {
		all[i].Value = d.scrub.clean(all[i].Value)
	}
	return all
}

func (d desk) located(steps []string) []string {
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = strings.Replace(s, "%s", d.baseURL, 1)
	}
	return out
}

func (s section) empty() bool { return len(s.Text)+len(s.Steps)+len(s.Facts)+len(s.Code) == 0 }

// render is the letter as text and as HTML.
func (l letter) render() (plain, html string, err error) {
	var t, h bytes.Buffer
	if err := textLetter.Execute(&t, l); err != nil {
		return "", "", err
	}
	if err := htmlLetter.Execute(&h, l); err != nil {
		return "", "", err
	}
	return t.String(), h.String(), nil
}

func requests(n int) string { return fmt.Sprintf("%d %s", n, plural(n)) }

func plural(n int) string {
	if n == 1 {
		return "request"
	}
	return "requests"
}

func clock(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") }

// duration writes d as a person does: "10m", not "10m0s".
func duration(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func inc(i int) int { return i + 1 }
