package scenarios_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"ddtb/app/lab/recipes"
	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
	"ddtb/db/activity"
)

func TestTheDoctorKnowsScenariosByTheirNumbersAndNames(t *testing.T) {
	t.Parallel()
	all := scenarios.All()
	for _, known := range activity.Scenarios() {
		if !slices.ContainsFunc(all, func(s *scene.Scenario) bool { return s.Number == known.Number && s.Name == known.Name }) {
			t.Errorf("the lab has no scenario %d %s, which the doctor names", known.Number, known.Name)
		}
	}
	for i, s := range all {
		if s.Number != i+1 {
			t.Errorf("%s is the scenario %d, and not %d", s.Name, i+1, s.Number)
		}
	}
}

func TestEachScenarioSaysAllThatItsPageNeeds(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios.All() {
		for field, text := range map[string]string{
			"title": s.Title, "family": string(s.Family), "message": s.Message, "figure": s.Figure, "fix": s.FixedBy, "SQL": s.SQL,
		} {
			if text == "" {
				t.Errorf("%s has no %s", s.Name, field)
			}
		}
		if n := utf8.RuneCountInString(s.Title); n > 50 {
			t.Errorf("%s: a title of %d characters does not fit a line of 80 beside the name", s.Name, n)
		}
		if n := strings.Count(s.Why, ". ") + 1; n != 3 {
			t.Errorf("%s is explained in %d sentences, not three: %s", s.Name, n, s.Why)
		}
		if g := recipes.Of(s.Recipe); g == nil || len(g.Stacks) != 8 {
			t.Errorf("%s has no recipe %q for eight stacks", s.Name, s.Recipe)
		}
	}
}

func TestTheCodeShownIsTheCodeThatRuns(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code []byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code = append(code, text...)
	}
	for _, s := range scenarios.All() {
		fails, works := source(t, s.Fails), source(t, s.Works)
		for _, text := range []string{fails, works} {
			if !bytes.Contains(code, []byte("\n"+text+"\n")) {
				t.Errorf("%s shows code that is in no file:\n%s", s.Name, text)
			}
			if n := strings.Count(text, "\n") + 1; n < 5 || n > 25 {
				t.Errorf("%s shows %d lines, not 5 to 25:\n%s", s.Name, n, text)
			}
		}
		if fails == works {
			t.Errorf("%s shows the same code twice", s.Name)
		}
	}
}

func source(t *testing.T, v scene.Variant) string {
	t.Helper()
	text, err := scenarios.Source(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAScenarioIsFoundByItsNumber(t *testing.T) {
	t.Parallel()
	for _, want := range scenarios.All() {
		if s, err := scenarios.Find(strconv.Itoa(want.Number)); err != nil || s != want {
			t.Errorf("%d: %+v, %v", want.Number, s, err)
		}
	}
}

func TestAnUnknownNameGetsTheNearest(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"thread-leaks": "thread-leak", "nested": "\"nested-acquire\"", "stampede": "\"reconnect-stampede\"", "mailstorm": "mail-storm", strings.Repeat("x", 10_000): "x…\": `ddtb lab list`",
		"": "\"\": `ddtb lab list`", "31": "\"31\": `ddtb lab list`", "zebra": "\"zebra\": `ddtb lab list`",
	} {
		_, err := scenarios.Find(name)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.40q: %v", name, err)
		}
	}
}
