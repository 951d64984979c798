package metrics

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ddtb/app/report"
	"ddtb/db"
)

const monitoring = "../../config/monitoring/"

// chosen finds the causes by which an expression chooses failures, or leaves them out, as YAML and JSON have it.
var chosen = regexp.MustCompile(`ddtb_failures_total\{[^}]*cause(=~?|!~)\\?"([^"\\]+)\\?"`)

// choices are the causes of each expression of a file.
func choices(t *testing.T, file string) (all [][]string) {
	t.Helper()
	text, err := os.ReadFile(monitoring + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range chosen.FindAllStringSubmatch(string(text), -1) {
		causes := strings.Split(found[2], "|")
		if found[1] == "!~" {
			causes = slices.DeleteFunc(report.Causes(), func(c string) bool { return slices.Contains(causes, c) })
		}
		all = append(all, causes)
	}
	return all
}

func TestEachCauseOfAFailureIsOneAlerts(t *testing.T) {
	alerts := map[string]int{}
	for _, causes := range choices(t, "alerts.yml") {
		for _, cause := range causes {
			alerts[cause]++
		}
	}
	for _, cause := range report.Causes() {
		if alerts[cause] != 1 {
			t.Errorf("%d alerts are about %q", alerts[cause], cause)
		}
		delete(alerts, cause)
	}
	if len(alerts) > 0 {
		t.Errorf("nothing fails for %v", alerts)
	}
}

func TestTheAlertAndThePanelAboutConnectionsHaveTheCausesOfThem(t *testing.T) {
	var want []string
	for _, c := range db.Causes {
		want = append(want, string(c.Cause))
	}
	for _, file := range []string{"alerts.yml", "grafana-dashboard.json"} {
		if all := choices(t, file); len(all) == 0 || strings.Join(all[0], "|") != strings.Join(want, "|") {
			t.Errorf("%s has %q, not %q", file, all, want)
		}
	}
}
