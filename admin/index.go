package admin

import (
	"net/http"

	"ddtb/app/fault"
	"ddtb/app/web"
)

// The first page, and that of an application.

type indexPage struct {
	frame
	Apps   []appIndex
	Recent []entry
	Links  []web.Link
	Only   bool // one application, without links and recent actions
}

// appIndex is an application, and what the user may do with its models.
type appIndex struct {
	*App
	Models []modelIndex
}

type modelIndex struct {
	*Model
	View, Add, Change bool
}

// apps returns the models that the user has any permission for, by application.
func (r *request) apps() []appIndex {
	var apps []appIndex
	for _, m := range models {
		index := modelIndex{m, r.can(m, actionView), r.can(m, actionAdd), r.can(m, actionChange)}
		if !index.View && !index.Add {
			continue
		}
		if len(apps) == 0 || apps[len(apps)-1].App != m.App {
			apps = append(apps, appIndex{App: m.App})
		}
		app := &apps[len(apps)-1]
		app.Models = append(app.Models, index)
	}
	return apps
}

func (s *Site) index(r *request) error {
	recent, err := r.recent()
	if err != nil {
		return err
	}
	p := indexPage{frame: r.frame("Site administration"), Apps: r.apps(), Recent: recent, Links: s.Links}
	return r.show(http.StatusOK, "index.html", p)
}

func (s *Site) appIndex(app *App) func(*request) error {
	return func(r *request) error {
		for _, index := range r.apps() {
			if index.App == app {
				frame := r.frame(app.Title+" administration", web.Link{Text: app.Title})
				return r.show(http.StatusOK, "index.html", indexPage{frame: frame, Apps: []appIndex{index}, Only: true})
			}
		}
		return fault.New(fault.NotFound, "There is nothing here that you may see.")
	}
}
