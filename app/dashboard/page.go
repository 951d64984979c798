package dashboard

import (
	"html/template"
	"net/http"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/web"
)

// head is a column's head.
type head struct {
	Text string
	Num  bool // numeric: aligned right
}

// heads are the columns of each table in the view.
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
		{Text: "Cause"}, {"Times", true}, {Text: "Last at"}, {Text: "Last on"}, {Text: "What the visitor saw"},
	},
	"failures": {{Text: "At"}, {Text: "Cause"}, {Text: "Address"}, {Text: "What the visitor saw"}},
}

// tableView is a table with the name by which the script finds it.
type tableView struct {
	Name, Label string
	Heads       []head
	Rows        [][]string
	Link        string // of each row, followed by its first cell; "": none
}

type pageData struct {
	view
	User    *auth.User
	Charts  []chart
	Script  string // the charts, for the script
	Control *form  // nil: not a superuser
	Switch  *action
	Ended   *action
	File    string // the configuration file
	Testing bool
	Points  int // the number of points in the charts
}

// Table returns the view's table with that name. label describes it to screen readers.
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

// Under returns the table under a chart.
func (p pageData) Under(c chart) tableView {
	t := p.Table(c.table(), c.Title+", the most in each span of time")
	t.Heads = []head{{Text: "Until"}}
	for _, l := range c.Lines {
		t.Heads = append(t.Heads, head{web.Capitalized(l.Name), true})
	}
	return t
}

// show renders the page. It needs no connection: the user is cached for a while.
func (b *Board) show(c echo.Context, user *auth.User) error {
	texts := typed(c.QueryParams())
	control := b.newForm(texts, nil)
	control.Kept = len(texts) > 0
	return b.render(c, user, control)
}

func (b *Board) render(c echo.Context, user *auth.User, control *form) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store") // after logout, Back must not show it
	data := pageData{
		view: b.feed.event().view(), User: user, Charts: charts, Script: chartsJSON(), Control: control,
		Switch: b.lastSwitch(), Ended: b.lastEnding(), File: b.Options.Config.File, Testing: b.Testing(), Points: pointsKept,
	}
	if !user.Superuser {
		data.Control = nil
	}
	return pages.Render(c, http.StatusOK, "connections.html", data)
}

// Figure returns a figure at the top: its title, name and current text.
func (p pageData) Figure(title, name string) []string {
	return []string{title, name, p.Texts[name], p.Texts[name+"_more"]}
}
