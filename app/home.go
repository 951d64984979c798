package app

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"time"

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

// slotsTimeout limits a query of the server's slots.
const slotsTimeout = 2 * time.Second

// connectionInfo is a summary of the application's connections, for JSON.
func (a *App) connectionInfo(ctx context.Context) (map[string]any, activity.Slots) {
	cfg, stat := a.db.Config(), a.db.Stat()
	info := map[string]any{"database": cfg.Name, "strategy": cfg.Strategy, "settings": lab.SettingsOf(cfg)}
	addFigures(info, db.Figures, &stat)
	slots, err := a.slots(ctx)
	if err != nil {
		info["error"] = missingFigures(err)
		return info, slots
	}
	addFigures(info, activity.Figures, &activity.Status{Snapshot: activity.Snapshot{Slots: slots}})
	return info, slots
}

// missingFigures returns why the server's slots are unknown. The error contains the server's name, which belongs in the log.
func missingFigures(err error) string {
	if errors.Is(err, activity.ErrBusy) {
		return "The monitoring connection is in use by another query, which waits for a lock, or the database server does not answer."
	}
	return web.ProblemOf(activity.Unanswered(err)).Detail
}

// slots queries the server once for all requests that wait: they share one connection with readiness and the dashboard.
func (a *App) slots(ctx context.Context) (activity.Slots, error) {
	slots, err, _ := a.slotQueries.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotsTimeout)
		defer cancel()
		slots, err := a.monitor.Slots(ctx)
		if err != nil {
			a.log.WarnContext(ctx, "the start page can't show the server's slots", "error", err)
		}
		return slots, err
	})
	return slots.(activity.Slots), err
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
	info, slots := a.connectionInfo(c.Request().Context())
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
		return fmt.Sprintf("All %d database connections of this application are in use, and none has been released: pages that need one fail.", p.Now.Size)
	case p.Failure != nil && !p.Failure.Over:
		return web.ProblemOf(&db.ConnError{Cause: p.Failure.Cause}).Detail
	}
	return ""
}
