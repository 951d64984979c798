package admin

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"ddtb/app/web"
)

type changelistPage struct {
	frame
	Model     *Model
	CanAdd    bool
	CanDelete bool
	Search    string
	Hidden    []input // parameters that the search form keeps
	Heads     []head
	Rows      []line
	Filters   []filter
	Dates     *dates
	Matches   count
	Total     count
	Filtered  bool
	Plain     string // the list without search and filters
	Pages     []choiceLink
	ShowAll   string
	Preserved string
	Self      string // this list, for the action's form
	Mangled   bool   // the address was invalid, so everything is listed
}

type input struct{ Name, Value string }

// head is a column's title, with links to sort by it.
type head struct {
	Title, Sort, Unsort, Sorted string
	Place                       int // among several sort columns
}

type line struct {
	ID    int64
	Label string
	Path  string
	Cells []cell
}

// cell shows text, a time, or yes or no.
type cell struct {
	Text string
	Time *time.Time
	Icon string // "yes" or "no"
}

type filter struct {
	Title   string
	Choices []choiceLink
}

type choiceLink struct {
	Text, Link string
	Selected   bool
}

// dates is the row of links of the date hierarchy.
type dates struct {
	Up   *choiceLink
	Here string
	Down []choiceLink
}

// changelist lists the rows of a model.
func (s *Site) changelist(r *request) error {
	now := s.now().UTC()
	l, understood := parseLookups(r.model, r.QueryParams())
	if !understood {
		return r.to(r.model.path() + "?" + notUnderstood + "=1")
	}
	got, err := l.list(r.ctx, s.db)
	if err != nil {
		return err
	}
	m := r.model
	p := changelistPage{
		frame: r.frame(fmt.Sprintf("Select %s to %s", m.Singular, r.verb()), r.crumbs(nil, "")...), Model: m,
		CanAdd: r.can(m, actionAdd), CanDelete: r.can(m, actionDelete),
		Search: l.search, Hidden: l.hidden(), Heads: l.heads(), Rows: l.lines(got.rows, now),
		Filters: l.filters(got.options, now), Dates: l.dates(got.steps), Matches: got.matches, Total: got.total,
		Filtered: len(l.where.conditions) > 0, Preserved: l.preserved(), Self: l.with("p", l.params.Get("p")),
		Plain: l.plain(), Pages: l.pages(got.matches), Mangled: r.QueryParams().Has(notUnderstood),
	}
	if !l.all && !got.matches.guessed && got.matches.n > pageSize && got.matches.n <= showAllMax {
		p.ShowAll = l.with("all", "1")
	}
	return r.show(http.StatusOK, "changelist.html", p)
}

// verb is the user's permission on a selected object.
func (r *request) verb() string {
	if r.can(r.model, actionChange) {
		return "change"
	}
	return "view"
}

// plain keeps the order and drops search, filters and hierarchy.
func (l *lookups) plain() string {
	q := url.Values{}
	if o := l.params.Get("o"); o != "" {
		q.Set("o", o)
	}
	return "?" + q.Encode()
}

func (l *lookups) hidden() []input {
	var inputs []input
	for _, name := range slices.Sorted(maps.Keys(l.params)) {
		if name != "q" && name != "p" && name != "all" {
			inputs = append(inputs, input{name, l.params.Get(name)})
		}
	}
	return inputs
}

// sorted returns the sort columns: the requested ones, or the model's default.
func (l *lookups) sorted() []int {
	if len(l.order) > 0 {
		return l.order
	}
	var order []int
	for _, o := range l.model.Order {
		i := slices.IndexFunc(l.model.Columns, func(c Column) bool { return c.Field == strings.TrimPrefix(o, "-") })
		if i >= 0 && o[0] == '-' {
			order = append(order, -(i + 1))
		} else if i >= 0 {
			order = append(order, i+1)
		}
	}
	return order
}

func (l *lookups) heads() []head {
	sorted := l.sorted()
	heads := make([]head, len(l.model.Columns))
	for i, c := range l.model.Columns {
		n := i + 1
		h := head{Title: c.title(l.model)}
		at := slices.IndexFunc(sorted, func(o int) bool { return abs(o) == n })
		rest := slices.DeleteFunc(slices.Clone(sorted), func(o int) bool { return abs(o) == n })
		switch {
		case at < 0:
			rest = append([]int{n}, rest...)
		case sorted[at] > 0:
			h.Sorted = "ascending"
		default:
			h.Sorted = "descending"
		}
		if at >= 0 {
			if len(sorted) > 1 {
				h.Place = at + 1
			}
			h.Unsort = l.with("o", joinOrder(rest))
			rest = append([]int{-sorted[at]}, rest...)
		}
		h.Sort = l.with("o", joinOrder(rest))
		heads[i] = h
	}
	return heads
}

func joinOrder(order []int) string {
	parts := make([]string, len(order))
	for i, n := range order {
		parts[i] = strconv.Itoa(n)
	}
	return strings.Join(parts, ".")
}

func (l *lookups) lines(rows []row, now time.Time) []line {
	lines := make([]line, len(rows))
	for i, row := range rows {
		lines[i] = line{ID: row.id, Label: row.label, Path: l.model.path(row.id, "change") + l.preserved()}
		for _, c := range l.model.Columns {
			lines[i].Cells = append(lines[i].Cells, c.cell(l.model.field(c.Field), row.values[c.Field], now))
		}
	}
	return lines
}

func (c *Column) cell(f *Field, value any, now time.Time) cell {
	if _, ok := f.Kind.(Boolean); ok || c.Value != nil {
		yes := value == true
		if c.Value != nil {
			yes = c.Value(value, now)
		}
		if yes {
			return cell{Icon: "yes"}
		}
		return cell{Icon: "no"}
	}
	if t, ok := value.(time.Time); ok {
		t = t.UTC()
		return cell{Time: &t}
	}
	if text := strings.TrimSpace(f.Kind.text(value)); text != "" {
		return cell{Text: text}
	}
	return cell{Text: "-"}
}

// filters returns the filter links, with the current ones marked.
func (l *lookups) filters(options map[string][]option, now time.Time) []filter {
	var all []filter
	for _, name := range l.model.Filters {
		f := l.model.field(name)
		choices := l.choices(f, options[name], now)
		if len(choices) > 1 {
			all = append(all, filter{"By " + strings.ToLower(f.Title()), choices})
		}
	}
	return all
}

func (l *lookups) choices(f *Field, options []option, now time.Time) []choiceLink {
	exact := f.Name + "__exact"
	var links []choiceLink
	one := func(text, param, value string) {
		links = append(links, choiceLink{text, l.with(param, value), l.params.Get(param) == value})
	}
	switch k := f.Kind.(type) {
	case DateTime:
		return l.periods(f, now)
	case Boolean:
		one("All", exact, "")
		one("Yes", exact, "1")
		one("No", exact, "0")
	case Choice:
		one("All", exact, "")
		for n, text := range k.Names {
			if text != "" {
				one(text, exact, strconv.Itoa(n))
			}
		}
	case Reference, *Many:
		exact = f.Name + "__id__exact"
		one("All", exact, "")
		for _, o := range options {
			one(o.Label, exact, strconv.FormatInt(o.ID, 10))
		}
	}
	return links
}

// periods are Django's: a day, a week, a month, a year.
func (l *lookups) periods(f *Field, now time.Time) []choiceLink {
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	month, year := today.AddDate(0, 0, 1-today.Day()), today.AddDate(0, 0, 1-today.YearDay())
	gte, lt := f.Name+"__gte", f.Name+"__lt"
	var links []choiceLink
	for _, p := range []struct {
		text     string
		from, to time.Time
	}{
		{text: "Any date"},
		{"Today", today, today.AddDate(0, 0, 1)},
		{"Past 7 days", today.AddDate(0, 0, -7), today.AddDate(0, 0, 1)},
		{"This month", month, month.AddDate(0, 1, 0)},
		{"This year", year, year.AddDate(1, 0, 0)},
	} {
		var from, to string
		if !p.from.IsZero() {
			from, to = p.from.Format(dateForm), p.to.Format(dateForm)
		}
		selected := l.params.Get(gte) == from && l.params.Get(lt) == to
		links = append(links, choiceLink{p.text, l.with(gte, from, lt, to), selected})
	}
	return links
}

// dates returns the hierarchy's links: up to the year or to all dates, and down to existing dates.
func (l *lookups) dates(steps []time.Time) *dates {
	name, v := l.model.Hierarchy, l.level
	if name == "" || (len(steps) == 0 && v.year == 0) {
		return nil
	}
	year, month, day := name+"__year", name+"__month", name+"__day"
	y, m := strconv.Itoa(v.year), strconv.Itoa(v.month)
	d := &dates{}
	form, here := "2006", ""
	from, _ := v.span()
	switch {
	case v.day > 0:
		here = from.Format("2 January 2006")
		d.Up = &choiceLink{Text: from.Format("January 2006"), Link: l.with(year, y, month, m, day, "")}
	case v.month > 0:
		form, here = "2 January", from.Format("January 2006")
		d.Up = &choiceLink{Text: y, Link: l.with(year, y, month, "", day, "")}
	case v.year > 0:
		form, here = "January", y
		d.Up = &choiceLink{Text: "All dates", Link: l.with(year, "", month, "", day, "")}
	}
	d.Here = here
	for _, s := range steps {
		parts := []string{year, strconv.Itoa(s.Year())}
		if v.year > 0 {
			parts = append(parts, month, strconv.Itoa(int(s.Month())))
		}
		if v.month > 0 {
			parts = append(parts, day, strconv.Itoa(s.Day()))
		}
		d.Down = append(d.Down, choiceLink{Text: s.Format(form), Link: l.with(parts...)})
	}
	return d
}

// pages returns links to the first and last pages and those near this one, with "…" between them.
func (l *lookups) pages(c count) []choiceLink {
	last := min(int((c.n+pageSize-1)/pageSize), maxPage)
	if l.all || last <= 1 && l.page == 1 {
		return nil
	}
	var links []choiceLink
	here, gap := min(l.page, last), false
	for n := 1; n <= last; n++ {
		if n > 2 && n < last-1 && abs(n-here) > 2 {
			gap = true
			if n < here {
				n = here - 3 // skip ahead: there may be thousands
			} else {
				n = last - 2
			}
			continue
		}
		if gap {
			links, gap = append(links, choiceLink{Text: "…"}), false
		}
		links = append(links, choiceLink{strconv.Itoa(n), l.with("p", strconv.Itoa(n)), n == l.page})
	}
	return links
}

// Trail returns the breadcrumbs above this page.
func (f frame) Trail() []web.Link { return f.Crumbs[:len(f.Crumbs)-1] }

// Here returns the last breadcrumb.
func (f frame) Here() string { return f.Crumbs[len(f.Crumbs)-1].Text }
