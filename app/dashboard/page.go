package dashboard

import (
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
)

// head is the head of a column.
type head struct {
	Text string
	Num  bool // numbers, to the right
}

// heads are the columns of each table that the picture fills.
var heads = map[string][]head{
	"findings": {{Text: "Level"}, {Text: "What"}, {Text: "What to do"}},
	"states":   {{Text: "State"}, {"Sessions", true}},
	"applications": {
		{Text: "Application"},
		{"Sessions", true},
		{"Active", true},
		{"Idle", true},
		{"Idle in transaction", true},
		{"Waiting for a lock", true},
		{"Oldest", true},
	},
	"settings": {{Text: "Setting"}, {"Value", true}},
	"counters": {{Text: "Since the strategy came into force"}, {"Times", true}},
	"holders":  {{"Age", true}, {Text: "Line"}, {"Backend", true}, {Text: "State there"}},
	"causes": {
		{Text: "Cause"}, {"Times", true}, {Text: "Last at"}, {Text: "Last on"}, {Text: "What the visitor was told"},
	},
	"failures": {{Text: "At"}, {Text: "Cause"}, {Text: "Address"}, {Text: "What the visitor was told"}},
}

// chart is a chart, and what stands in the table under it. dashboard.js knows how it is drawn.
type chart struct {
	Name, Title, What string
	More              string // what the table has beside what is drawn
	Heads             []head
	figures           []int
	Rows              [][]string
}

var charts = []chart{
	{
		Name: "slots", Title: "Slots used",
		What: "of the server, against what an application can get, and what this deployment may need",
		Heads: []head{
			{Text: "Until"}, {"Used", true}, {"Usable", true}, {"Budget", true}, {"Warning", true}, {"Critical", true},
		},
		figures: []int{figUsed, figUsable, figBudget, figWarn, figCritical},
	},
	{
		Name: "leases", Title: "Leases and waiters", What: "of this process",
		More: "and how many milliseconds 50, 95 and 99 of 100 waits within a minute took at most",
		Heads: []head{
			{Text: "Until"}, {"Leases", true}, {"Waiting", true}, {"Leases at most", true}, {"Wait p50", true}, {"p95", true}, {"p99", true},
		},
		figures: []int{figLeases, figWaiting, figSize, figP50, figP95, figP99},
	},
	{
		Name: "connects", Title: "New sessions a second", What: "on the server, and attempts to connect of this process",
		Heads:   []head{{Text: "Until"}, {"New sessions", true}, {"Attempts", true}},
		figures: []int{figNew, figConnects},
	},
}

// tableView is a table with a name by which the script finds it.
type tableView struct {
	Name, Label string
	Heads       []head
	Rows        [][]string
}

// Span is how many columns the cells of a row of one cell take.
func (t tableView) Span() int { return len(t.Heads) }

type pageData struct {
	picture
	User    *auth.User
	Charts  []chart
	Control *form // nil: not a superuser
	Switch  *handSwitch
	File    string // of the configuration
	Testing bool
	Stream  string
	Points  int // how many the charts keep
	Rows    int // how many the tables under them do
}

// Table is the picture's table of that name; label says what it is to who doesn't see where it stands.
func (p pageData) Table(name, label string) tableView {
	return tableView{name, label, heads[name], p.Tables[name]}
}

// Under is the table under a chart.
func (c chart) Under() tableView {
	return tableView{"chart-" + c.Name, c.Title + ", the most in each span of time", c.Heads, c.Rows}
}

// rowsUnder are the rows of the tables under the charts, by the chart's name.
func rowsUnder(points []point, made int64) map[string][][]string {
	all := map[string][][]string{}
	for _, c := range charts {
		all[c.Name] = thinned(points, made, c.figures)
	}
	return all
}

// show answers the page. It needs no connection: who asks is remembered for a while.
func (b *Board) show(c echo.Context) error {
	user, err := auth.UserFrom(c.Request().Context())
	switch {
	case err != nil:
		return err
	case user == nil || !user.Staff:
		return toLogin(c, nil)
	}
	texts := typed(c.QueryParams())
	control := b.newForm(texts, nil)
	control.Kept = len(texts) > 0
	return b.render(c, http.StatusOK, user, control)
}

// mostTyped is how long what was typed may be in an address, in bytes: proxies refuse a header that is much longer.
const mostTyped = 2 << 10

// toLogin leads back here after the login, with what was typed in the address: none of it is secret.
func toLogin(c echo.Context, texts map[string]string) error {
	next := url.URL{Path: Path}
	query := url.Values{}
	for key, text := range texts {
		query.Set(key, text)
	}
	if encoded := query.Encode(); len(encoded) <= mostTyped {
		next.RawQuery = encoded
	}
	return c.Redirect(http.StatusFound, "/admin/login/?"+url.Values{"next": {next.String()}}.Encode())
}

func (b *Board) render(c echo.Context, status int, user *auth.User, control *form) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store") // after logout, Back must not show it
	e := b.feed.event()
	data := pageData{
		picture: e.picture(), User: user, Control: control, Switch: b.lastSwitch(),
		File: b.Options.Config.File, Testing: b.Testing(), Stream: streamPath, Points: pointsKept, Rows: rowsKept,
	}
	if !user.Superuser {
		data.Control = nil
	}
	for _, ch := range charts {
		ch.Rows = e.rows()[ch.Name]
		data.Charts = append(data.Charts, ch)
	}
	return pages.Render(c, status, "connections.html", data)
}

// Figure is one of the figures at the top: its title, its name, and what it says now.
func (p pageData) Figure(title, name string) []string {
	return []string{title, name, p.Texts[name], p.Texts[name+"_more"]}
}
