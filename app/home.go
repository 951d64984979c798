package app

import (
	"embed"
	"fmt"
	"html/template"
	"net/http"

	"github.com/labstack/echo/v4"

	"ddtb/app/lab"
	"ddtb/app/lab/scenarios"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
)

var (
	//go:embed templates
	templateFS embed.FS
	//go:embed static
	staticFS embed.FS

	files = web.MustFiles("app", staticFS)
	pages = web.MustTemplates(templateFS, template.FuncMap{"static": files.URL})
)

// connectionInfo is a summary of the application's connections, for JSON. The server's figures are those of the last poll.
func (a *App) connectionInfo() (map[string]any, activity.Slots) {
	cfg, stat, last := a.db.Config(), a.db.Stat(), a.sampler.Latest()
	info := map[string]any{"database": cfg.Name, "strategy": cfg.Strategy, "settings": lab.SettingsOf(cfg)}
	if last.Err != nil {
		info["error"] = web.ProblemOf(last.Err).Detail // the error contains the server's name, which belongs in the log
	}
	addFigures(info, db.Figures, &stat)
	addFigures(info, activity.Figures, &activity.Status{Snapshot: last.Snapshot})
	return info, last.Snapshot.Slots
}

func addFigures[S any](info map[string]any, figures []db.Figure[S], s *S) {
	for _, f := range figures {
		if f.Key != "" {
			info[f.Key] = f.Value(s)
		}
	}
}

// home answers browsers with the start page, and curl with JSON.
func (a *App) home(c echo.Context) error {
	info, slots := a.connectionInfo()
	if !web.WantsHTML(c) {
		return c.JSONPretty(http.StatusOK, map[string]any{"name": "ddtb", "connection_info": info, "configuration": config.Version(a.o.File)}, "  ")
	}
	return pages.Render(c, http.StatusOK, "home.html", map[string]any{
		"Info": info, "Slots": slots, "Tests": a.lab.Enabled(), "Scenarios": len(scenarios.All()), "Host": c.Request().Host, "Trouble": a.trouble(), "Switch": a.o.Complete("ddtb strategy"),
		"Warn": slots.Usable() * a.cfg.Monitor.Warn / 100, "Critical": slots.Usable() * a.cfg.Monitor.Critical / 100,
	})
}

// trouble returns why requests can't be served, for the public: without source lines and addresses.
func (a *App) trouble() string {
	switch p := a.leases.Now(); {
	case p.Dry():
		return fmt.Sprintf("All %d database connections of this application are out, and none comes back: pages that need one fail.", p.Now.Size)
	case p.Failure != nil && !p.Failure.Over:
		return web.ProblemOf(&db.ConnError{Cause: p.Failure.Cause}).Detail
	}
	return ""
}
