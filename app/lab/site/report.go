package site

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"time"

	"ddtb/app/lab/recipes"
	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
	"ddtb/app/web"
	"ddtb/db/activity"
)

var (
	//go:embed report.html
	reportHTML string
	//go:embed static/chart.css
	chartCSS string
	//go:embed static/lab.css
	labCSS string
)

var report = template.Must(template.Must(template.New("report").Funcs(template.FuncMap{"chart": outcomeSVG}).
	ParseFS(templateFS, "templates/_parts.html")).Parse(reportHTML))

// outcomeSVG draws one half of a run.
func outcomeSVG(r *scene.Result, o *scene.Outcome) template.HTML {
	return svg(o.Samples, o.Slots, fmt.Sprintf("%s: %s, peak %d of %d slots", r.Name, r.Words(o), o.Peak, o.Slots))
}

// section is what a page and the report show of a scenario.
type section struct {
	*scene.Scenario
	Result       *scene.Result     // nil: not run yet
	Fails, Works string            // the source as it ran
	Doctor       activity.Scenario // the diagnosis of `ddtb db-connections doctor`
	Recipes      *recipes.Group
}

func newSection(s *scene.Scenario, r *scene.Result) (_ section, err error) {
	x := section{Scenario: s, Result: r, Recipes: recipes.Of(s.Recipe)}
	for _, d := range activity.Scenarios() {
		if d.Name == s.Name {
			x.Doctor = d
		}
	}
	if x.Fails, err = scenarios.Source(s.Fails); err != nil {
		return x, err
	}
	x.Works, err = scenarios.Source(s.Works)
	return x, err
}

// WriteReport writes a self-contained HTML file with at least one result: its style is inline, its charts are SVG, and
// it has no script.
func WriteReport(w io.Writer, results []*scene.Result) error {
	data := struct {
		CSS      template.CSS
		At       string
		Version  string
		Sections []section
		OK       int
	}{CSS: template.CSS(web.Stylesheet() + labCSS + chartCSS), At: time.Now().UTC().Format("2 January 2006, 15:04 UTC")} //nolint:gosec // our own files
	for _, r := range results {
		s, err := scenarios.Find(r.Name)
		if err != nil {
			return err
		}
		x, err := newSection(s, r)
		if err != nil {
			return err
		}
		data.Sections, data.Version = append(data.Sections, x), cmp.Or(data.Version, r.Server) // "" of one that could not be run
		if r.OK() {
			data.OK++
		}
	}
	return report.Execute(w, data)
}
