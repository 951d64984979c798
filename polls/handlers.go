package polls

import (
	"embed"
	"html/template"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/web"
)

//go:embed templates/*.html
var templateFS embed.FS

//go:embed static
var staticFS embed.FS

// Static is the package's stylesheet, for the route /static/*.
var Static = web.MustFiles("polls", staticFS)

var pages = web.MustTemplates(templateFS, template.FuncMap{
	"static": Static.URL,
	"inc":    func(i int) int { return i + 1 }, // people count from one
	"date":   date,
})

// date formats a day with a machine-readable time, in UTC, because the reader's time zone is unknown.
func date(t time.Time) template.HTML {
	t = t.UTC()
	html := `<time datetime="` + t.Format(time.RFC3339) + `">` + t.Format("2 January 2006") + `</time>`
	return template.HTML(html) //nolint:gosec // a time has nothing to escape
}

// listed is the number of questions in the list.
const listed = 5

// Handlers are the pages. They return database errors unchanged, for the central error handler.
type Handlers struct {
	store *Store
	list  *web.Memo
	forms [formMemos]*web.Memo // by the question's number, modulo
	mark  Token                // stands for the token in a cached form; never sent
}

// formMemos is how many forms are cached, of about 3 KB each. Questions with the same number modulo formMemos share one
// place.
const formMemos = 256

// New makes the pages over a store.
func New(store *Store) *Handlers {
	h := &Handlers{store: store, list: pages.Memo("list.html"), mark: newToken()}
	for i := range h.forms {
		h.forms[i] = pages.Memo("detail.html")
	}
	return h
}

// Routes returns the addresses of the pages for the application's table, which redirects to the final slash.
func (h *Handlers) Routes() []web.Route {
	return []web.Route{
		web.Get("/polls/", h.List),
		web.Get("/polls/:id/", h.Detail),
		web.Get("/polls/:id/results/", h.Results),
		web.Post("/polls/:id/vote/", h.Vote),
		web.Get("/polls/:id/vote/", h.NoVote), // shows the form again
	}
}

// item is a question in the list.
type item struct {
	ID      int64
	Text    string
	PubDate time.Time
	Recent  bool
}

// list is the data of the list. It is comparable, so that the page is rendered only if it has changed.
type list struct {
	items [listed]item
	n     int
}

// Items returns the questions, newest first.
func (l list) Items() []item { return l.items[:l.n] }

// List shows the newest questions.
func (h *Handlers) List(c echo.Context) error {
	questions, err := h.store.Latest(c.Request().Context(), listed)
	if err != nil {
		return err
	}
	now := time.Now() // not the database's: a difference of the clocks only delays or prolongs "New"
	var shown list
	for i, q := range questions {
		shown.items[i] = item{q.ID, q.Text, q.PubDate, q.WasPublishedRecently(now)}
	}
	shown.n = len(questions)
	return h.list.Render(c, http.StatusOK, shown)
}

// detail is a question with its form. Error describes the mistake in the submitted form.
type detail struct {
	Question
	Error string
	Token Token
}

// Detail shows the form of one question.
func (h *Handlers) Detail(c echo.Context) error {
	return h.form(c, "")
}

// Results shows the votes.
func (h *Handlers) Results(c echo.Context) error {
	q, err := h.question(c)
	if err != nil {
		return err
	}
	return pages.Render(c, http.StatusOK, "results.html", q)
}

// Vote counts the vote and redirects to the results, so that reloading does not vote again. A repeated vote gets the
// same response. Without a valid choice the form is shown again.
func (h *Handlers) Vote(c echo.Context) error {
	id, err := web.ID(c, "id")
	if err != nil {
		return err
	}
	b, complaint, err := readBallot(c.Response(), c.Request())
	if err != nil {
		return err
	}
	if complaint != "" {
		return h.form(c, complaint)
	}
	if b.token != (Token{}) {
		web.CountsOnce(c)
	}
	counted, err := h.store.Vote(c.Request().Context(), id, b.choice, b.token)
	if err != nil {
		return err
	}
	if !counted { // the question may not exist: the form checks
		return h.form(c, noChoice)
	}
	return c.Redirect(http.StatusFound, Question{ID: id}.Path()+"results/")
}

// NoVote answers a GET of the voting address as the tutorial's view does: the form, without a choice. A browser sends
// it when a rejected vote is reloaded.
func (h *Handlers) NoVote(c echo.Context) error { return h.form(c, noChoice) }

func (h *Handlers) form(c echo.Context, complaint string) error {
	q, err := h.question(c)
	if err != nil {
		return err
	}
	// If a cache served one page to two users, their votes would count as one.
	c.Response().Header().Set(echo.HeaderCacheControl, "private, no-cache")
	for i := range q.Choices {
		q.Choices[i].Votes = 0 // not shown: another vote does not change the form
	}
	form := h.forms[uint64(q.ID)%formMemos]
	return form.RenderWith(c, http.StatusOK, detail{q, complaint, h.mark}, h.mark.String(), newToken().String())
}

// question returns the published question in the address.
func (h *Handlers) question(c echo.Context) (Question, error) {
	id, err := web.ID(c, "id")
	if err != nil {
		return Question{}, err
	}
	return h.store.Published(c.Request().Context(), id)
}
