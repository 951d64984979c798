package app_test

import (
	"bufio"
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"ddtb/app/lab/scenarios"
	"ddtb/app/web/webtest"
	"ddtb/config"
	"ddtb/db/dbtest"
)

// result is what a page says once its scenario was run.
const result = "fixed by one mail for a cause"

func TestStaffRunAScenarioAndEveryoneReadsTheResult(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	cookie := s.login("ada")
	t.Run("a visitor reads the page, and can't run it", func(t *testing.T) {
		s := s.in(t)
		mustContain(t, s.get("/lab/"), 200, "<code>bin/ddtb lab run --all</code>")
		mustContain(t, s.get("/lab/mail-storm/"), 200, "It has not been run here yet.", "<code>bin/ddtb lab run mail-storm</code>")
		mustContain(t, s.post("/lab/mail-storm/", nil), 403, "Only staff can run a scenario.", "bin/ddtb lab run mail-storm")
		if a := s.get("/lab/report.html"); a.StatusCode != 303 || a.header("Location") != "/lab/" {
			t.Errorf("a report of nothing: %s", a.Status)
		}
	})
	t.Run("an unknown name gets the nearest", func(t *testing.T) {
		s := s.in(t)
		mustContain(t, s.get("/lab/mail-strom/"), 404, "mail-storm")
		mustContain(t, s.get("/lab/mail-strom/live"), 404, "mail-storm")
		mustContain(t, s.post("/lab/mail-storm/", url.Values{"only": {"nonsense"}}, "Cookie", cookie), 400, "failure, fix, or empty")
	})
	t.Run("two who press Run at once wait for the same run, and a third sees the queue", func(t *testing.T) {
		s := s.in(t)
		for range 2 {
			if a := s.post("/lab/mail-storm/", nil, "Cookie", cookie); a.StatusCode != 303 || a.header("Location") != "/lab/mail-storm/" {
				t.Errorf("%s\n%s", a.Status, a.body)
			}
		}
		mustContain(t, s.get("/lab/mail-storm/"), 200, `data-stream="/lab/mail-storm/live"`, `http-equiv="refresh"`)
		s.post("/lab/report-amplifies/", nil, "Cookie", cookie)
		page := s.get("/lab/").body
		if strings.Count(page, `<a href="/lab/mail-storm/">`) != 2 || !strings.Contains(page, "Waiting") {
			t.Errorf("the queue is not shown once: %.3000s", page)
		}
	})
	t.Run("a viewer sees it live, and one who leaves disturbs nobody", func(t *testing.T) {
		s := s.in(t)
		leaves, leave := context.WithCancel(t.Context())
		stream := s.live(leaves, "mail-storm")
		stream.until("event: picture")
		leave()
		stays := s.live(t.Context(), "mail-storm")
		stays.until("polyline")
		stays.until("event: done")
	})
	t.Run("everyone reads the result", func(t *testing.T) {
		s := s.in(t)
		mustContain(t, s.get("/lab/mail-storm/"), 200, "reproduced; "+result, "100 of 100 mails sent", "1 of 100 mails sent", "<polyline")
		report := s.get("/lab/report.html")
		mustContain(t, report, 200, result, "<polyline", "On your own server", "In your stack", "Java (HikariCP)", "Where it was reported")
		for _, outside := range []string{"<script", "<link", "<img", "src=", "url("} {
			if strings.Contains(report.body, outside) {
				t.Errorf("the report needs %s", outside)
			}
		}
	})
}

func TestTheLabIsOffUnlessTheConfigurationTurnsItOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) { c.Test.Enabled = false })
	for _, path := range []string{"/lab/", "/lab/mail-storm/", "/lab/mail-storm/live", "/lab/report.html"} {
		mustContain(t, s.get(path, "Accept", "text/html"), 404, "The lab is off.")
	}
}

// viewing is a stream of a run.
type viewing struct {
	t  testing.TB
	in *bufio.Scanner
}

func (s *site) live(ctx context.Context, name string) viewing {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/lab/"+name+"/live", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	return viewing{s.t, in}
}

// until reads to a line with the text.
func (v viewing) until(text string) {
	v.t.Helper()
	for v.in.Scan() {
		if strings.Contains(v.in.Text(), text) {
			return
		}
	}
	v.t.Fatalf("the stream ends without %q: %v", text, v.in.Err())
}

func TestTheLabSuitsEverybodyInTheBrowser(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	b := webtest.Open(t, s.url)
	b.Login("ada", testPassword)
	b.Visit("/lab/mail-storm/")
	b.Press(`button[value="failure"]`)
	b.Until(`!!document.querySelector("#live svg.run")`)
	b.Until(`!!document.body?.innerText?.includes("Without the fix:") && !document.getElementById("live")`)
	b.MustBeUntroubled()
	b.Press(`button[value=""]`)
	b.Until(`!!document.body?.innerText?.includes("` + result + `")`)
	for _, l := range webtest.Looks {
		b.LookAs(l)
		for _, path := range []string{"/", "/lab/", "/lab/mail-storm/"} {
			b.Visit(path)
			b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("details").forEach(d => d.open = true)`))
			b.MustSuitEverybody("lab" + path)
			b.MustBeUntroubled()
		}
	}
	b.LookAs(webtest.Look{Width: 1280, Scheme: "light"})
	for _, x := range scenarios.All() {
		b.Visit("/lab/" + x.Name + "/")
		if found := b.Violations(); found != "" {
			t.Errorf("%s:\n%s", x.Name, found)
		}
	}
	if _, err := chromedp.Call(b.Tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.Visit("/lab/report-amplifies/")
	b.Press(`button[value="fix"]`)
	b.Until(`!!document.body?.innerText?.includes("With the fix:") && !document.getElementById("live")`) // reloaded
}

func TestATestInABrowserShowsThatItRunsAndThenItsResult(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	b := webtest.Open(t, s.url)
	b.LookAs(webtest.Look{Width: 360, Scheme: "dark"})
	const path = "/test/pool-stress?threads=4&strategy=pool&max_size=3&timeout=3s&hold="
	b.Visit(path + "50s")
	b.MustSay("The test is running")
	b.MustSay(path + "50s\n") // without what the page adds
	b.Shoot("test-progress")
	cfg := s.cfg.Databases["default"]
	control := dbtest.Control(t, cfg)
	backends := func() int { return dbtest.Backends(t, control, cfg.ApplicationName+"-stress/pool") }
	dbtest.Eventually(t, "the test runs", func() bool { return backends() == 3 })
	b.Visit("/test/")
	dbtest.Eventually(t, "the test ended with its page", func() bool { return backends() == 0 })
	b.Visit(path + "4s")
	b.Until(`!!document.body?.innerText?.includes("3 got one, 1 did not")`)
	for _, l := range webtest.Looks {
		b.LookAs(l)
		b.MustSuitEverybody("test-result")
	}
	b.MustBeUntroubled()
	b.Visit("/test/pool-stress?threads=many")
	b.Until(`!!document.body?.innerText?.includes("give a whole number")`)
}
