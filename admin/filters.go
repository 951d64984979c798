package admin

import (
	"strconv"
	"strings"
	"time"
)

// The links that narrow a changelist down: filters beside it, and the date hierarchy above it.

type filter struct {
	Title   string
	Choices []choiceLink
}

// Filters returns the filters, with the current choice of each marked.
func (l *changelist) Filters() []filter {
	var all []filter
	for _, name := range l.Model.Filters {
		f := l.Model.field(name)
		if choices := l.choices(f); len(choices) > 1 {
			all = append(all, filter{"By " + strings.ToLower(f.Title()), choices})
		}
	}
	return all
}

func (l *changelist) choices(f *Field) []choiceLink {
	param := f.Name + "__exact"
	var links []choiceLink
	add := func(text, value string) {
		links = append(links, choiceLink{text, l.with(param, value), l.params.Get(param) == value})
	}
	switch f.Kind {
	case DateTime:
		return l.periods(f)
	case Boolean:
		add("All", "")
		add("Yes", "1")
		add("No", "0")
	case Choice:
		add("All", "")
		for n, text := range f.Names {
			if text != "" {
				add(text, strconv.Itoa(n))
			}
		}
	case Reference, Many:
		param = f.Name + "__id__exact"
		add("All", "")
		for _, o := range l.options[f.Name] {
			add(o.Label, strconv.FormatInt(o.ID, 10))
		}
	}
	return links
}

// periods are Django's: a day, a week, a month, a year.
func (l *changelist) periods(f *Field) []choiceLink {
	today := time.Date(l.now.Year(), l.now.Month(), l.now.Day(), 0, 0, 0, 0, time.UTC)
	month, year := today.AddDate(0, 0, 1-today.Day()), today.AddDate(0, 0, 1-today.YearDay())
	var links []choiceLink
	add := func(text, from, to string) {
		gte, lt := f.Name+"__gte", f.Name+"__lt"
		selected := l.params.Get(gte) == from && l.params.Get(lt) == to
		links = append(links, choiceLink{text, l.with(gte, from, lt, to), selected})
	}
	add("Any date", "", "")
	for _, p := range []struct {
		text     string
		from, to time.Time
	}{
		{"Today", today, today.AddDate(0, 0, 1)},
		{"Past 7 days", today.AddDate(0, 0, -7), today.AddDate(0, 0, 1)},
		{"This month", month, month.AddDate(0, 1, 0)},
		{"This year", year, year.AddDate(1, 0, 0)},
	} {
		add(p.text, p.from.Format(dateForm), p.to.Format(dateForm))
	}
	return links
}

// dates is the row of links of the date hierarchy.
type dates struct {
	Up   *choiceLink
	Here string
	Down []choiceLink
}

// The formats of the date hierarchy, by depth: of what is chosen, and of the links to the next level.
var (
	hereForms = []string{"", "2006", "January 2006", "2 January 2006"}
	downForms = []string{"2006", "January", "2 January"}
)

// Dates returns the links of the date hierarchy: up to the year or to all dates, and down to dates that have rows.
func (l *changelist) Dates() *dates {
	if len(l.steps) == 0 && l.depth == 0 {
		return nil
	}
	d := &dates{}
	if l.depth > 0 {
		d.Here = l.date.Format(hereForms[l.depth])
		d.Up = &choiceLink{Text: "All dates", Link: l.dateLink(l.date, l.depth-1)}
	}
	if l.depth > 1 {
		d.Up.Text = l.date.Format(hereForms[l.depth-1])
	}
	for _, s := range l.steps {
		d.Down = append(d.Down, choiceLink{Text: s.Format(downForms[l.depth]), Link: l.dateLink(s, l.depth+1)})
	}
	return d
}

// dateLink returns the query that opens the hierarchy at a date to a depth.
func (l *changelist) dateLink(t time.Time, depth int) string {
	var changes []string
	for i, part := range []int{t.Year(), int(t.Month()), t.Day()} {
		value := ""
		if i < depth {
			value = strconv.Itoa(part)
		}
		changes = append(changes, l.Model.dateParams()[i], value)
	}
	return l.with(changes...)
}
