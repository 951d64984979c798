package admin

import (
	"net/http"

	"ddtb/app/fault"
	"ddtb/app/web"
)

type indexPage struct {
	frame
	Apps   []appView
	Recent []entry
	Only   bool // one application, without recent actions
}

type appView struct {
	*App
	Path   string
	Models []modelView
}

type modelView struct {
	*Model
	Title             string
	List, Add, Change string // addresses; "" where the user may not
}

// apps returns the models that the user has any permission for, by application.
func (r *request) apps() []appView {
	var apps []appView
	for _, m := range models {
		view, add := r.can(m, actionView), r.can(m, actionAdd)
		if !view && !add {
			continue
		}
		if len(apps) == 0 || apps[len(apps)-1].App != m.App {
			apps = append(apps, appView{App: m.App, Path: root + m.App.Name + "/"})
		}
		v := modelView{Model: m, Title: capitalized(m.Plural)}
		if view {
			v.List = m.path()
		}
		if add {
			v.Add = m.path("add")
		}
		if r.can(m, actionChange) {
			v.Change = m.path()
		}
		apps[len(apps)-1].Models = append(apps[len(apps)-1].Models, v)
	}
	return apps
}

// index lists the models and the user's latest actions.
func (s *Site) index(r *request) error {
	recent, err := r.recent()
	if err != nil {
		return err
	}
	p := indexPage{frame: r.frame("Site administration"), Apps: r.apps(), Recent: recent}
	return r.show(http.StatusOK, "index.html", p)
}

// appIndex lists the models of one application.
func (s *Site) appIndex(app *App) func(*request) error {
	return func(r *request) error {
		for _, view := range r.apps() {
			if view.App == app {
				title := app.Title + " administration"
				return r.show(http.StatusOK, "index.html",
					indexPage{frame: r.frame(title, web.Link{Text: app.Title}), Apps: []appView{view}, Only: true})
			}
		}
		return fault.New(fault.NotFound, "There is nothing here that you may see.")
	}
}
