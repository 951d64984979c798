package dashboard

import (
	_ "embed" // the findings
	"html/template"
	"slices"
	"strings"

	"ddtb/app/web"
	"ddtb/db/activity"
)

//go:embed findings.html
var findingsText string

var findingsTemplate = template.Must(template.New("findings").Parse(findingsText))

// classes are the CSS classes of a note or a tag.
var classes = map[activity.Level]string{
	activity.OK: "good", activity.Warning: "warn", activity.Critical: "bad", activity.Unknown: "warn",
}

// findingView is one finding with its steps.
type findingView struct {
	Level, Class, Where string
	What                string // "": filled in by the script
	Steps               []activity.Step
	Same                bool   // its steps are those of a finding above it
	Lab, Page           string // the command that reproduces it, and the lab's page
}

// findingsHTML renders the findings for both the page and its script. Their sentences contain numbers that change
// constantly. For the script, the sentences are sent separately as texts, so that text being read or copied stays in
// place.
func findingsHTML(d activity.Diagnosis, whole bool) template.HTML {
	views := make([]findingView, len(d.Health.Findings))
	for i, f := range d.Health.Findings {
		v := findingView{Level: f.Level.String(), Class: classes[f.Level], Where: "PostgreSQL", Steps: f.Steps(), Lab: f.Lab()}
		if whole {
			v.What = sentence(f)
		}
		if f.AboutProcess() {
			v.Where = "this application"
		}
		if i == 0 && len(d.Steps) > 0 {
			v.Steps, v.Lab = d.Steps, d.Lab
		}
		if len(v.Steps) == 0 && f.Do != "" {
			v.Steps = []activity.Step{{Do: f.Do}}
		}
		if _, name, is := strings.Cut(v.Lab, " lab run "); is {
			v.Page = "/lab/" + name + "/"
		}
		v.Same = slices.ContainsFunc(views[:i], func(above findingView) bool { return slices.Equal(above.Steps, v.Steps) })
		views[i] = v
	}
	var b strings.Builder
	if err := findingsTemplate.Execute(&b, struct {
		activity.Diagnosis
		Views []findingView
	}{d, views}); err != nil {
		panic(err) // the template is embedded, and its data are only texts
	}
	return template.HTML(b.String()) //nolint:gosec // escaped by the template that made it
}

func sentence(f activity.Finding) string { return web.Capitalized(f.What) + "." }
