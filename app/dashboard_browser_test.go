package app_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp" // drives a real browser: that charts are drawn, and CSP lets them, can't be seen over HTTP

	"ddtb/config"
	"ddtb/db/dbtest"
)

var screenshots = flag.String("screenshots", "", "folder for screenshots of the dashboard; none without it")

// browser is a tab of a headless Chromium that remembers what went wrong in its pages.
type browser struct {
	t   testing.TB
	ctx context.Context
	s   *site
}

const noteTrouble = `window.trouble = [];
	addEventListener("securitypolicyviolation", e => trouble.push("CSP: " + e.violatedDirective + " " + e.blockedURI + " " + e.sample));
	addEventListener("error", e => trouble.push(e.message));
	addEventListener("unhandledrejection", e => trouble.push(String(e.reason)));`

func (s *site) browse() *browser {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	s.t.Cleanup(cancel)
	options := []chromedp.ExecAllocatorOption{
		chromedp.Headless, chromedp.NoFirstRun, chromedp.DisableGPU, chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses root
	}
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	s.t.Cleanup(cancelAllocator)
	ctx, cancelTab := chromedp.NewContext(ctx)
	s.t.Cleanup(cancelTab)
	b := &browser{s.t, ctx, s}
	b.visit("/healthz")
	if _, err := chromedp.Call(ctx, cdp.AddScriptToEvaluateOnNewDocument, cdp.AddScriptToEvaluateOnNewDocumentParams{Source: noteTrouble}); err != nil {
		s.t.Fatal(err)
	}
	b.visit("/admin/")
	b.do(chromedp.SendKeys(chromedp.CSS("#id_username"), "ada"), chromedp.SendKeys(chromedp.CSS("#id_password"), testPassword))
	b.press("input[type=submit]")
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.s.url + path))
}

// press clicks what leads to another page, and waits for it.
func (b *browser) press(selector string) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("press %s: %v", selector, err)
	}
}

// value is what an expression is in the page.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true in the page.
func (b *browser) until(expression string) {
	b.t.Helper()
	dbtest.Eventually(b.t, expression, func() bool { return value[bool](b, expression) })
}

// mustBeUntroubled fails the test if a script failed on the page, or the policy kept something from it.
func (b *browser) mustBeUntroubled() {
	b.t.Helper()
	if trouble := value[string](b, `trouble.join("\n")`); trouble != "" {
		b.t.Error(trouble)
	}
}

func (b *browser) lookAs(width int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"}, // colours on their way are of neither scheme
		},
	}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) shoot(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// violations are what axe-core finds on the page, one a line.
func (b *browser) violations(axe string) string {
	b.t.Helper()
	if !value[bool](b, `typeof axe === "object"`) {
		value[bool](b, axe+"; true")
	}
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`axe.run({resultTypes: ["violations"]}).then(r => r.violations.map(
		v => v.id + ": " + v.help + "\n" + v.nodes.map(n => "    " + n.html + "\n    " + n.failureSummary).join("\n")).join("\n"))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

const isLive = `document.getElementById("live").textContent === "Live"`

func TestAPersonWatchesAndSwitchesInTheBrowser(t *testing.T) {
	s := newBoard(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize, d.Pool.Timeout = 2, time.Second })
	})
	b := s.browse()
	b.press(`.plainlist a[href="/admin/connections/"]`)
	b.until(isLive)
	b.until(`document.querySelectorAll(".plot canvas").length === 3 && columns[0].length > 2`)
	if value[int](b, `document.querySelectorAll(".chart details[open]").length`) != 0 {
		t.Error("the tables under the charts are open, beside the charts")
	}
	b.do(chromedp.Click(chromedp.CSS(".chart-slots summary")))
	b.until(`document.querySelector("[data-table=chart-slots] tbody").rows.length > 2`)

	b.do(chromedp.SetValue(chromedp.CSS(`[name="threads"]`), "6"), chromedp.SetValue(chromedp.CSS(`[name="hold"]`), "3s"),
		chromedp.SetValue(chromedp.CSS(`[name="timeout"]`), "1s"), chromedp.Click(chromedp.CSS(`[action="/test/pool-stress"] button`)))
	b.until(`document.querySelector("[data-text=leases]").textContent === "2 of 2"`)
	b.until(`Math.max(...columns[WAITING]) === 4`)
	b.until(`document.getElementById("test-result").textContent.includes('"failures": 4')`)
	b.mustBeUntroubled()

	b.do(chromedp.Click(chromedp.CSS(`input[value="persistent"]`)))
	if !value[bool](b, `document.getElementById("id_persistent_workers").offsetParent && !document.getElementById("id_pool_max_size").offsetParent`) {
		t.Error("the sizes that are shown are not those of the chosen strategy")
	}
	b.do(chromedp.SetValue(chromedp.CSS("#id_persistent_workers"), "3"))
	b.press("#control-form button")
	b.until(isLive)
	b.until(`document.body.innerText.includes("ada switched strategy from pool to persistent, persistent.workers from 0 to 3")`)
	b.until(`document.querySelector("[data-text=leases]").textContent.endsWith("of 3")`)
	b.mustBeUntroubled()

	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.visit(connections)
	if !value[bool](b, `document.getElementById("refresh").offsetParent && document.querySelector("[data-table=chart-slots]").offsetParent && true`) {
		t.Error("without JavaScript there is no table under a chart, or no way to refresh")
	}
	b.shoot("connections-without-script")
}

func TestTheDashboardIsAccessibleAndFitsThePhone(t *testing.T) {
	axe, err := os.ReadFile("../admin/testdata/axe-core-4.14.1/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: smallSlots})
	cfg := server.Config(t)
	s := boardOn(t, cfg, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize = 3 })
	})
	b := s.browse()
	look := func(state string) {
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 360} {
				b.lookAs(width, scheme)
				b.visit(connections)
				b.until(isLive)
				if found := b.violations(string(axe)); found != "" {
					t.Errorf("%s, %d, %s:\n%s", state, width, scheme, found)
				}
				if got := value[int64](b, `document.documentElement.scrollWidth`); got > width {
					t.Errorf("%s, %s: %d pixels wide on %d", state, scheme, got, width)
				}
				b.mustBeUntroubled()
				b.shoot(strings.Join([]string{"connections", state, scheme, map[int64]string{1280: "wide", 360: "narrow"}[width]}, "-"))
			}
		}
	}
	stress := make(chan answer, 1)
	go func() {
		a, err := s.send(context.WithoutCancel(t.Context()), fresh, "GET", "/test/pool-stress?threads=9&hold=20s&timeout=20s", nil)
		if err != nil {
			t.Error(err)
		}
		stress <- a
	}()
	dbtest.Eventually(t, "they wait", func() bool { return s.DB().Stat().Waiting > 0 })
	look("stress")
	if _, err := s.DB().Exec(t.Context(), "SELECT 1"); err == nil { // waits until a place is free, at most
		s.get("/polls/")
	}
	<-stress
	s.reconfigure(func(c *config.Database) { perRequest(c) })
	fillUp(t, cfg)
	for range 3 {
		s.get("/polls/", "Accept", "text/html")
	}
	look("exhausted")
	b.lookAs(360, "light")
	b.do(chromedp.SetValue(chromedp.CSS("#id_per_request_max_size"), "many"))
	b.press("#control-form button")
	b.until(isLive)
	if found := b.violations(string(axe)); found != "" {
		t.Errorf("a form with mistakes:\n%s", found)
	}
	b.shoot("connections-mistake-light-narrow")
}
