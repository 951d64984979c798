// Package webtest tests pages in a real Chromium. Scripts, keyboard, layout, colours and the content security policy
// can't be tested over HTTP. It checks accessibility with axe-core, whose source is included.
//
// Without Chromium the tests fail; none is skipped. A browser ends with its test.
//
//	go test ./admin ./app -run Accessible -screenshots /tmp/shots
//
// The package knows the admin's login, and no other page. Only _test files may import it.
package webtest

import (
	"context"
	_ "embed" // axe-core
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp" // speaks with the browser

	"ddtb/db/dbtest"
)

//go:embed axe-core-4.14.1/axe.min.js
var axe string

var screenshots = flag.String("screenshots", "", "directory for screenshots of the pages that are looked at; none without it")

// Browser is a tab of a headless Chromium with a profile of its own.
type Browser struct {
	Tab context.Context // for anything without a method here: chromedp.Call(b.Tab, …)

	t    testing.TB
	site string
	look Look
}

// Open starts a browser, which ends with the test, or after 6 minutes. Paths are relative to site, an address without a
// final slash.
func Open(t testing.TB, site string) *Browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	t.Cleanup(cancel)
	options := []chromedp.ExecAllocatorOption{
		chromedp.Headless, chromedp.NoFirstRun, chromedp.DisableGPU, chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox does not run as root
	}
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancelAllocator)
	ctx, cancelTab := chromedp.NewContext(ctx)
	t.Cleanup(cancelTab)
	script := page.AddScriptToEvaluateOnNewDocumentParams{Source: noteTrouble}
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, script); err != nil {
		t.Fatal(err)
	}
	return &Browser{Tab: ctx, t: t, site: site}
}

// noteTrouble runs before the page's scripts.
const noteTrouble = `window.trouble = [];
	addEventListener("securitypolicyviolation", e => trouble.push("CSP: " + e.violatedDirective + " " + e.blockedURI + " " + e.sample));
	addEventListener("error", e => trouble.push(e.message));
	addEventListener("unhandledrejection", e => trouble.push(String(e.reason)));`

// Do runs the steps in order.
func (b *Browser) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.Tab, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// Visit opens a path of the site.
func (b *Browser) Visit(path string) {
	b.t.Helper()
	b.Do(chromedp.Navigate(b.site + path))
}

// Press clicks an element that leads to another page, and waits for the page.
func (b *Browser) Press(selector string) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.Tab, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("press %s: %v", selector, err)
	}
}

// Click clicks an element that stays on the page.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	b.Do(chromedp.Click(chromedp.CSS(selector)))
}

// Type replaces the text of an input.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	b.Do(chromedp.Clear(chromedp.CSS(selector)), chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Login logs in, and waits for the admin's index.
func (b *Browser) Login(username, password string) {
	b.t.Helper()
	b.Visit("/admin/")
	b.Type("#id_username", username)
	b.Type("#id_password", password)
	b.Press("input[type=submit]")
}

// Value returns the value of a JavaScript expression in the page. It awaits a promise.
func Value[T any](b *Browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.Tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// Until waits until an expression is true in the page, or in the page that it leads to.
func (b *Browser) Until(expression string) {
	b.t.Helper()
	dbtest.Eventually(b.t, expression, func() bool {
		is, err := chromedp.Run(b.Tab, chromedp.Evaluate[bool](expression))
		return err == nil && is // a page that is being left returns an error
	})
}

// MustSay fails the test unless the text is visible on the page.
func (b *Browser) MustSay(text string) {
	b.t.Helper()
	if got := Value[string](b, `document.body.innerText`); !strings.Contains(got, text) {
		b.t.Errorf("the page does not say %q: %.800s", text, got)
	}
}

// MustBeUntroubled fails the test if a script failed on the page or the policy blocked a resource.
func (b *Browser) MustBeUntroubled() {
	b.t.Helper()
	if trouble := Value[string](b, `trouble.join("\n")`); trouble != "" {
		b.t.Error(trouble)
	}
}

// Look is a window size and colour scheme.
type Look struct {
	Width  int64  // of the window, in pixels
	Scheme string // "light" or "dark"
}

// Looks are the required combinations. The last two are a phone's.
var Looks = []Look{{1280, "light"}, {1280, "dark"}, {360, "light"}, {360, "dark"}}

// LookAs applies to this page and later ones.
func (b *Browser) LookAs(l Look) {
	b.t.Helper()
	b.look = l
	b.Do(chromedp.EmulateViewport(l.Width, 900))
	if _, err := chromedp.Call(b.Tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: l.Scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"}, // colours on their way are of neither scheme
		},
	}); err != nil {
		b.t.Fatal(err)
	}
}

// MustSuitEverybody fails the test if axe-core finds a violation or the page is wider than the window. It uses the look
// set with LookAs, and takes a screenshot. name identifies the page in both.
func (b *Browser) MustSuitEverybody(name string) {
	b.t.Helper()
	name = fmt.Sprintf("%s-%d-%s", strings.ReplaceAll(strings.Trim(name, "/"), "/", "-"), b.look.Width, b.look.Scheme)
	if found := b.Violations(); found != "" {
		b.t.Errorf("%s:\n%s", name, found)
	}
	if width := Value[int64](b, `document.documentElement.scrollWidth`); width > b.look.Width {
		b.t.Errorf("%s: %d pixels wide", name, width)
	}
	b.Shoot(name)
}

// Violations returns axe-core's findings, one per line.
func (b *Browser) Violations() string {
	b.t.Helper()
	if !Value[bool](b, `typeof axe === "object"`) {
		Value[bool](b, axe+"; true")
	}
	return Value[string](b, `axe.run({resultTypes: ["violations"], preload: false}).then(r => r.violations.map(
		v => v.id + ": " + v.help + "\n" + v.nodes.map(n => "    " + n.html + "\n    " + n.failureSummary).join("\n")).join("\n"))`)
}

// Shoot writes a screenshot of the whole page, if a directory for them was given.
func (b *Browser) Shoot(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	png, err := chromedp.Run(b.Tab, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
