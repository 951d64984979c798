package app

import (
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/lab"
	"ddtb/app/lab/scenarios"
	"ddtb/app/web"
	"ddtb/db"
)

var (
	//go:embed templates
	templateFS embed.FS
	//go:embed static
	staticFS embed.FS

	files = web.MustFiles("app", staticFS)
	pages = web.MustTemplates(templateFS, template.FuncMap{"static": files.URL})
)

// connectionInfo is a summary of the application's connections.
type connectionInfo struct {
	Database    string       `json:"database"`
	Strategy    string       `json:"strategy"`
	Settings    lab.Settings `json:"settings"`
	Leases      int          `json:"leases"`
	Idle        int          `json:"idle"`
	Waiting     int          `json:"waiting"`
	Max         int          `json:"max_connections"`
	Reserved    int          `json:"reserved"`
	Usable      int          `json:"usable"`
	Used        int          `json:"used"`
	Free        int          `json:"free"`
	Utilisation float64      `json:"utilisation_percent"`
	Error       string       `json:"error,omitempty"` // why the server's figures are missing
}

const lookTimeout = 2 * time.Second

func (a *App) connectionInfo(ctx context.Context) connectionInfo {
	cfg, stat := a.db.Config(), a.db.Stat()
	info := connectionInfo{
		Database: cfg.Name, Strategy: cfg.Strategy, Settings: lab.SettingsOf(cfg),
		Leases: stat.Leases, Idle: stat.Idle, Waiting: stat.Waiting,
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := a.server.Slots(ctx)
	if err != nil {
		info.Error = web.ProblemOf(err).Detail // the error contains the server's name, which belongs in the log
		a.log.WarnContext(ctx, "the start page can't show the server's slots", "error", err)
		return info
	}
	info.Max, info.Reserved, info.Usable, info.Used, info.Free = s.Max, s.Reserved, s.Usable(), s.Used, s.Free()
	info.Utilisation = float64(int(10*s.Utilisation())) / 10
	return info
}

// home answers browsers with the start page, and curl with JSON.
func (a *App) home(c echo.Context) error {
	info := a.connectionInfo(c.Request().Context())
	if !web.WantsHTML(c) {
		return c.JSONPretty(http.StatusOK, map[string]any{"name": "ddtb", "connection_info": info}, "  ")
	}
	return pages.Render(c, http.StatusOK, "home.html", map[string]any{
		"Info": info, "Tests": a.lab.Enabled(), "Scenarios": len(scenarios.All()), "Host": c.Request().Host, "Trouble": a.trouble(), "Switch": a.complete("ddtb strategy"),
		"Warn": info.Usable * a.cfg.Monitor.Warn / 100, "Critical": info.Usable * a.cfg.Monitor.Critical / 100,
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
