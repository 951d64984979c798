package admin

import (
	"strconv"
	"strings"
	"time"
)

// The filters beside a changelist.

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
