package app

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"ddtb/db/activity"
)

// Handler returns the handler of every request.
func (a *App) Handler() http.Handler { return a.echo }

// Addresses are the method and path of every route in the table.
func (a *App) Addresses() (all [][2]string) {
	for _, r := range a.table() {
		all = append(all, [2]string{r.method, r.path})
	}
	return all
}

// AddPage adds a page that queries, with all that pages pass on their way. Call it before the first request.
func (a *App) AddPage(path string, h echo.HandlerFunc) { a.bind(a.echo, route{get, path, h, page}) }

// Sampler returns the shared sampler of the server.
func (a *App) Sampler() *activity.Sampler { return a.sampler }

// AgentAddr is where the agent answers.
func (a *App) AgentAddr() string { return a.agent.Addr().String() }
