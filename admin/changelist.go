package admin

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// changelist is a model's list as an address asks for it, and what the database has of it. Its exported methods are for
// the template.
type changelist struct {
	Model  *Model
	Search string
	now    time.Time
	params url.Values // as received, without those of another page
	order  []int      // columns from 1, negative for descending
	page   int
	all    bool
	where  where     // search, lookups and date hierarchy
	depth  int       // of the date hierarchy: 0, or how many of year, month and day are chosen
	date   time.Time // the first day of what is chosen there

	rows    []row
	Matches count // rows that match
	Total   count // all rows
	steps   []time.Time
	options map[string][]option // of filters by a relation
}

type changelistPage struct {
	frame
	*changelist
	CanAdd    bool
	CanDelete bool
	Mangled   bool // the address was invalid, so everything is listed
}

func (s *Site) changelist(r *request) error {
	l, ok := parseChangelist(r.model, r.QueryParams(), time.Now().UTC())
	if !ok {
		return r.to(r.model.path() + "?" + notUnderstood + "=1")
	}
	if err := l.read(r.ctx, s.DB.Read()); err != nil {
		return err
	}
	verb := "view"
	if r.can(r.model, actionChange) {
		verb = "change"
	}
	return r.show(http.StatusOK, "changelist.html", changelistPage{
		frame:      r.frame(fmt.Sprintf("Select %s to %s", r.model.Singular, verb), r.crumbs(nil, "")...),
		changelist: l, Mangled: r.QueryParams().Has(notUnderstood),
		CanAdd: r.can(r.model, actionAdd), CanDelete: r.can(r.model, actionDelete),
	})
}

// Filtered reports whether the list leaves out rows.
func (l *changelist) Filtered() bool { return len(l.where.conditions) > 0 }

// with returns the query of a link: this list's with some parameters changed. An empty value drops a parameter. The
// page is dropped unless it is among the changes.
func (l *changelist) with(changes ...string) string {
	q := maps.Clone(l.params)
	q.Del("p")
	for change := range slices.Chunk(changes, 2) {
		q.Set(change[0], change[1])
		if change[1] == "" {
			q.Del(change[0])
		}
	}
	return "?" + q.Encode()
}

// Self returns the query of this page.
func (l *changelist) Self() string { return l.with("p", l.params.Get("p")) }

// Plain returns the query that keeps the order, and drops search, lookups and hierarchy.
func (l *changelist) Plain() string {
	return "?" + url.Values{"o": l.params["o"]}.Encode()
}

// Preserved returns the query for links to forms, so that a save returns to this list: "?_changelist_filters=…" or "".
func (l *changelist) Preserved() string { return preserve(l.params) }

// Hidden returns the parameters that a search keeps.
func (l *changelist) Hidden() url.Values {
	q := maps.Clone(l.params)
	for _, name := range []string{"q", "p", "all"} {
		q.Del(name)
	}
	return q
}

// head is a column's title, with links to sort by it.
type head struct {
	Title, Sort, Unsort, Sorted string
	Place                       int // among several sort columns
}

// Heads returns the titles of the columns.
func (l *changelist) Heads() []head {
	heads := make([]head, len(l.Model.Columns))
	for i, c := range l.Model.Columns {
		isThis := func(n int) bool { return abs(n) == i+1 }
		at := slices.IndexFunc(l.order, isThis)
		rest := slices.DeleteFunc(slices.Clone(l.order), isThis)
		h, next := head{Title: cmp.Or(c.Title, l.Model.field(c.Field).Title())}, i+1
		if at >= 0 {
			h.Sorted, next = "ascending", -l.order[at]
			if l.order[at] < 0 {
				h.Sorted = "descending"
			}
			h.Unsort = l.with("o", joinOrder(rest))
			if len(l.order) > 1 {
				h.Place = at + 1
			}
		}
		h.Sort = l.with("o", joinOrder(append([]int{next}, rest...)))
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

type line struct {
	ID    int64
	Name  string // for the checkbox
	Path  string
	Cells []template.HTML
}

// Lines returns the rows of the table.
func (l *changelist) Lines() []line {
	lines := make([]line, len(l.rows))
	preserved := l.Preserved()
	for i, row := range l.rows {
		lines[i] = line{
			ID: row.id, Name: cmp.Or(row.label, "number "+strconv.FormatInt(row.id, 10)),
			Path: l.Model.path(row.id, "change") + preserved, Cells: make([]template.HTML, len(l.Model.Columns)),
		}
		for j, c := range l.Model.Columns {
			lines[i].Cells[j] = c.cell(l.Model.field(c.Field), row.values[c.Field], l.now)
		}
	}
	return lines
}

// icons show true and false.
var icons = map[bool]template.HTML{true: icon("yes", "True"), false: icon("no", "False")}

func icon(name, alt string) template.HTML {
	url, err := Files.URL("admin/icon-" + name + ".svg")
	if err != nil {
		panic(err) // the file is embedded
	}
	return template.HTML(`<img src="` + url + `" alt="` + alt + `" width="18" height="18">`) //nolint:gosec // constants
}

// timeCell is the layout of a cell with a time.
const timeCell = `<time datetime="2006-01-02T15:04:05Z07:00"><span>2006-01-02</span> <span>15:04:05</span></time>`

// cell returns a value as HTML: text, a time, or an icon. A list has hundreds of them, so they need no template.
func (c *Column) cell(f *Field, value any, now time.Time) template.HTML {
	if c.Value != nil {
		return icons[c.Value(value, now)]
	}
	if f.Kind == Boolean {
		return icons[value == true]
	}
	if t, ok := value.(time.Time); ok {
		return template.HTML(t.UTC().Format(timeCell)) //nolint:gosec // digits in a constant
	}
	text := template.HTMLEscapeString(cmp.Or(strings.TrimSpace(f.text(value)), "-"))
	return template.HTML(text) //nolint:gosec // escaped
}

// ShowAll returns the query of a page with all matches, "" if there are too many or they fit a page.
func (l *changelist) ShowAll() string {
	if l.all || l.Matches.guessed || l.Matches.N <= pageSize || l.Matches.N > showAllMax {
		return ""
	}
	return l.with("all", "1")
}

// choiceLink is one link of several of which one may be selected.
type choiceLink struct {
	Text, Link string
	Selected   bool
}

// Pages returns links to the first and last pages and those near this one, with "…" between them.
func (l *changelist) Pages() []choiceLink {
	last := min(int((l.Matches.N+pageSize-1)/pageSize), maxPage)
	if l.all || last <= 1 && l.page == 1 {
		return nil
	}
	here := min(l.page, last)
	numbers := []int{1, 2, here - 2, here - 1, here, here + 1, here + 2, last - 1, last}
	numbers = slices.DeleteFunc(numbers, func(n int) bool { return n < 1 || n > last })
	numbers = slices.Compact(slices.Sorted(slices.Values(numbers)))
	var links []choiceLink
	for i, n := range numbers {
		if i > 0 && n > numbers[i-1]+1 {
			links = append(links, choiceLink{Text: "…"})
		}
		links = append(links, choiceLink{strconv.Itoa(n), l.with("p", strconv.Itoa(n)), n == l.page})
	}
	return links
}
