package dashboard

import (
	"context"
	"html/template"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/db"
)

// head is a column's head.
type head struct {
	Text string
	Num  bool // numeric: aligned right
}

// heads are the columns of each table in the picture.
var heads = map[string][]head{
	"states": {{Text: "State"}, {"Sessions", true}},
	"applications": {
		{Text: "Application"},
		{"Sessions", true},
		{"Active", true},
		{"Idle", true},
		{"Idle in transaction", true},
		{"Waiting for a lock", true},
		{"Oldest", true},
	},
	"sessions": {
		{Text: "Pid"}, {Text: "Application"}, {Text: "User"}, {Text: "Client"}, {Text: "State"}, {"For", true}, {Text: "Last query"},
	},
	"settings": {{Text: "Setting"}, {"Value", true}},
	"counters": {{Text: "Since the strategy came into force"}, {"Times", true}},
	"holders":  {{"Age", true}, {Text: "Line"}, {"Backend", true}, {Text: "State there"}},
	"replicas": {{Text: "Replica"}, {"Behind", true}, {"Reads", true}, {"Sent to the primary", true}, {Text: "State"}},
	"causes": {
		{Text: "Cause"}, {"Times", true}, {Text: "Last at"}, {Text: "Last on"}, {Text: "What the visitor was told"},
	},
	"failures": {{Text: "At"}, {Text: "Cause"}, {Text: "Address"}, {Text: "What the visitor was told"}},
}

// tableView is a table with the name by which the script finds it.
type tableView struct {
	Name, Label string
	Heads       []head
	Rows        [][]string
	Link        string // of each row, followed by its first cell; "": none
}

// Span returns how many columns a row with a single cell spans.
func (t tableView) Span() int { return len(t.Heads) }

type pageData struct {
	picture
	User    *auth.User
	Charts  []chart
	Script  string                // the charts, for the script
	under   map[string][][]string // the rows of the tables under the charts
	Control *form                 // nil: not a superuser
	Switch  *handSwitch
	Ended   *ending
	File    string // the configuration file
	Testing bool
	Stream  string
	Points  int // the number of points in the charts
	Rows    int // the number of rows in the tables under them
}

// Table returns the picture's table with that name. label describes it to screen readers.
func (p pageData) Table(name, label string) tableView {
	return tableView{Name: name, Label: label, Heads: heads[name], Rows: p.Tables[name]}
}

// WholeFindings returns the findings with their sentences, for a page without its script.
func (p pageData) WholeFindings() template.HTML { return findingsHTML(p.diagnosis, true) }

// Sessions returns the table of sessions, in which a superuser can select one.
func (p pageData) Sessions() tableView {
	t := p.Table("sessions", "Sessions")
	if p.User.Superuser {
		t.Link = sessionPath + "?pid="
	}
	return t
}

// Under returns a table under a chart.
func (p pageData) Under(u under) tableView {
	return tableView{Name: "chart-" + u.Name, Label: u.Label + ", the most in each span of time", Heads: u.Heads(), Rows: p.under[u.Name]}
}

// show renders the page. It needs no connection: the user is cached for a while.
func (b *Board) show(c echo.Context) error {
	user, err := b.whoLooks(c.Request().Context())
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

// whoLooks identifies the viewer. It uses a reserve if no other connection is available soon: the page is needed most
// then.
func (b *Board) whoLooks(ctx context.Context) (*auth.User, error) {
	soon, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	user, err := auth.UserFrom(soon)
	if err == nil || ctx.Err() != nil {
		return user, err
	}
	failed := b.LookReserve(ctx, func(ctx context.Context, q db.Querier) (err error) {
		user, err = auth.RecheckThrough(ctx, q)
		return err
	})
	if failed != nil {
		return nil, unanswered(err)
	}
	return user, nil
}

// mostTyped is the maximum size of typed values in an address, in bytes: proxies refuse a much longer request line.
const mostTyped = 2 << 10

// toLogin redirects to the login, which returns here. The typed values are in the address: none of them is secret.
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
		picture: e.picture(), User: user, Charts: charts, Script: chartsJSON(), under: e.rows(), Control: control, Switch: b.lastSwitch(), Ended: b.lastEnding(),
		File: b.Options.Config.File, Testing: b.Testing(), Stream: streamPath, Points: pointsKept, Rows: rowsKept,
	}
	if !user.Superuser {
		data.Control = nil
	}
	return pages.Render(c, status, "connections.html", data)
}

// Figure returns a figure at the top: its title, name and current text.
func (p pageData) Figure(title, name string) []string {
	return []string{title, name, p.Texts[name], p.Texts[name+"_more"]}
}
