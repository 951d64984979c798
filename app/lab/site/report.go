package site

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"time"

	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
	"ddtb/app/web"
)

var (
	//go:embed report.html
	reportHTML string
	//go:embed static/chart.css
	chartCSS string
)

var report = template.Must(template.New("report").Funcs(template.FuncMap{"chart": outcomeSVG}).Parse(reportHTML))

// outcomeSVG draws one half of a run.
func outcomeSVG(r *scene.Result, o *scene.Outcome) template.HTML {
	return svg(o.Samples, o.Slots, fmt.Sprintf("%s: %s, peak %d of %d slots", r.Name, r.Words(o), o.Peak, o.Slots))
}

type section struct {
	*scene.Result
	Scenario    *scene.Scenario
	Fails, Work string // the source code
}

// WriteReport writes a self-contained HTML file: its style is inline, its charts are SVG, and it has no script.
func WriteReport(w io.Writer, results []*scene.Result, version string) error {
	data := struct {
		CSS      template.CSS
		At       string
		Version  string
		Sections []section
		OK       int
	}{CSS: template.CSS(web.Stylesheet() + chartCSS), At: time.Now().UTC().Format("2 January 2006, 15:04 UTC"), Version: version} //nolint:gosec // our own files
	for _, r := range results {
		s, err := scenarios.Find(r.Name)
		if err != nil {
			return err
		}
		x := section{Result: r, Scenario: s}
		if x.Fails, err = scenarios.Source(s.Fails); err != nil {
			return err
		}
		if x.Work, err = scenarios.Source(s.Works); err != nil {
			return err
		}
		data.Sections = append(data.Sections, x)
		if r.OK() {
			data.OK++
		}
	}
	return report.Execute(w, data)
}
