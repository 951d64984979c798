// Package site serves the lab's pages below /lab/: the index of the scenarios, and a page for each with its live run
// and latest result. Staff can start runs; the pages are public. The report is the same in a single file.
//
// One run is active at a time. The queue is visible and bounded. A disconnecting browser has no effect, and every page
// works without JavaScript. A run never uses the application's database: the lab has its own PostgreSQL, which starts
// at the first run and stops after a while without runs.
package site

import (
	"bytes"
	"embed"
	"html/template"
	"log/slog"
	"maps"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
	"ddtb/app/web"
)

var (
	//go:embed templates/*.html
	templateFS embed.FS
	//go:embed static
	staticFS embed.FS

	// Files are the static files of the pages.
	Files = web.MustFiles("lab", staticFS)
	pages = web.MustTemplates(templateFS, template.FuncMap{"static": Files.URL, "chart": outcomeSVG})
)

// Path is the address of the index.
const Path = "/lab/"

// Site is the lab's pages.
type Site struct {
	runner   *runner
	viewers  chan struct{} // holds a token for each stream
	enabled  func() bool
	complete func(command string) string
}

// New makes the pages. They exist while enabled returns true. complete makes a command one that a terminal finds.
func New(enabled func() bool, complete func(command string) string, log *slog.Logger) *Site {
	return &Site{newRunner(log), make(chan struct{}, maxViewers), enabled, complete}
}

// Close ends the current run, the streams and the lab's server. It may be called twice.
func (s *Site) Close() { s.runner.close() }

// Routes returns the addresses. They require auth's Middleware, and no database scope.
func (s *Site) Routes() []web.Route {
	return []web.Route{
		web.Get(Path, s.guard(s.index)),
		web.Get(Path+"report.html", s.guard(s.report)),
		web.Get(Path+":name/", s.guard(s.show)),
		web.Post(Path+":name/", s.guard(s.run)),
		web.Get(Path+":name/live", s.guard(s.live)),
	}
}

func (s *Site) guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !s.enabled() {
			return fault.New(fault.NotFound, "The lab is off. To turn it on, set enabled = true under [test] in the configuration file.")
		}
		return next(c)
	}
}

func (s *Site) index(c echo.Context) error {
	return pages.Render(c, http.StatusOK, "lab.html", map[string]any{
		"Families": scene.Families, "Scenarios": scenarios.All(), "Results": s.runner.results(), "Queue": s.runner.queue(),
		"Command": s.complete("ddtb lab run --all"),
	})
}

// report returns the latest results, in the format of `ddtb lab run --report`.
func (s *Site) report(c echo.Context) error {
	latest := s.runner.results()
	if len(latest) == 0 {
		return c.Redirect(http.StatusSeeOther, Path)
	}
	results := slices.SortedFunc(maps.Values(latest), func(a, b *scene.Result) int { return a.Number - b.Number })
	var page bytes.Buffer
	if err := WriteReport(&page, results); err != nil {
		return err
	}
	// It is sent as a download: the content security policy of all pages would block its inline style.
	c.Response().Header().Set(echo.HeaderContentDisposition, `attachment; filename="ddtb-lab.html"`)
	return c.HTMLBlob(http.StatusOK, page.Bytes())
}

func (s *Site) show(c echo.Context) error {
	x, err := scenarios.Find(c.Param("name"))
	if err != nil {
		return fault.New(fault.NotFound, "%v", err)
	}
	shown, err := newSection(x, s.runner.results()[x.Name])
	if err != nil {
		return err
	}
	user, err := auth.UserOnce(c.Request().Context())
	staff := err == nil && user != nil && user.Staff // if the user can't be checked, the page is read-only
	queue := s.runner.queue()
	live, _ := s.runner.picture(x.Name)
	return pages.Render(c, http.StatusOK, "scenario.html", map[string]any{
		"S": shown, "User": user, "Staff": staff, "Queue": queue, "Running": slices.Contains(queue, x.Name), "Live": live,
		"Next": c.Request().URL.Path, "Command": s.complete("ddtb lab run " + x.Name),
	})
}

// run queues a run, for staff.
func (s *Site) run(c echo.Context) error {
	x, err := scenarios.Find(c.Param("name"))
	if err != nil {
		return fault.New(fault.NotFound, "%v", err)
	}
	user, err := auth.Recheck(c.Request().Context())
	switch {
	case err != nil:
		return err
	case user == nil || !user.Staff:
		return fault.New(fault.Forbidden, "Only staff can run a scenario. Log in at /admin/, or run it yourself: %s", s.complete("ddtb lab run "+x.Name))
	}
	only := c.FormValue("only")
	if only != "" && only != scene.Failure && only != scene.Fix {
		return fault.New(fault.Invalid, "only is failure, fix, or empty.")
	}
	if !s.runner.add(x, only) {
		return fault.New(fault.Busy, "The queue is full. Wait until a run has ended, then try again.")
	}
	return c.Redirect(http.StatusSeeOther, Path+x.Name+"/")
}

const maxViewers = 100 // of runs; further ones get 503

// live sends the picture of the scenario's run whenever it changes, and "done" at its end.
func (s *Site) live(c echo.Context) error {
	x, err := scenarios.Find(c.Param("name"))
	if err != nil {
		return fault.New(fault.NotFound, "%v", err)
	}
	select {
	case s.viewers <- struct{}{}:
		defer func() { <-s.viewers }()
	default:
		return fault.New(fault.Busy, "%d people watch the lab's runs, which is the limit. Load the page again instead.", maxViewers)
	}
	send := web.EventStream(c)
	if send == nil {
		return nil
	}
	for {
		picture, changed := s.runner.picture(x.Name)
		if send(event(picture)) != nil || picture == "" {
			return nil
		}
		select {
		case <-c.Request().Context().Done():
			return nil
		case <-s.runner.ctx.Done():
			return nil
		case <-changed:
		}
	}
}
