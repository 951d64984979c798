package app

import (
	"fmt"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/report"
)

// mostHolders is how many holders a mail lists.
const mostHolders = 20

// failed counts and reports a failed request, with a description of the database that needs no query. No lease is held at
// this point: the request's scope has ended.
func (a *App) failed(c echo.Context, err error) {
	a.count.Failed(err)
	a.board.Failed(c.Path(), err)
	a.ready.noteLastingRefusal(err)
	if a.report == nil {
		return // the rest names each holder's source lines, which costs more than the refusal itself
	}
	in := report.Incident{
		Err:     err,
		Request: report.RequestOf(c.Request(), c.Path(), c.RealIP(), c.Response().Header().Get(echo.HeaderXRequestID)),
	}
	if last := a.sampler.Latest(); last.Err == nil && last.Sample.Slots != nil {
		in.Slots = fmt.Sprintf("%.1f s before the failure, %s", time.Since(last.Seen).Seconds(), last.Sample.Slots.Brief())
	}
	holders := a.db.Holders()
	for _, h := range holders[:min(len(holders), mostHolders)] {
		in.Holders = append(in.Holders, fmt.Sprintf("%.1f s  %s", time.Since(h.Since).Seconds(), h.Where))
	}
	a.report.Report(in)
}
