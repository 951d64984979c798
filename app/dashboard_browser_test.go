package app_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"ddtb/app/web/webtest"
	"ddtb/config"
	"ddtb/db/dbtest"
)

const isLive = `document.getElementById("live").textContent === "Live"`

// rowsOnServer are the rows under a chart as the server writes them into the page, without the newest, which changes.
const rowsOnServer = `fetch(location.href).then(r => r.text()).then(html =>
	[...new DOMParser().parseFromString(html, "text/html").querySelectorAll("[data-table=chart-slots] tbody tr")].slice(1)
		.map(row => [...row.cells].map(cell => cell.textContent).join("\t")))`

func TestAPersonWatchesAndSwitchesInTheBrowser(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize, d.Pool.Timeout = 2, time.Second })
	})
	b := webtest.Open(t, s.url)
	b.Login("ada", testPassword)
	b.Press(`.plainlist a[href="/admin/connections/"]`)
	b.Until(isLive)
	b.Until(`document.querySelectorAll(".plot canvas").length === 3 && columns.time.length > 2`)
	if webtest.Value[int](b, `document.querySelectorAll(".chart details[open]").length`) != 0 {
		t.Error("the tables under the charts are open, beside the charts")
	}
	b.Click(".chart-slots summary")
	b.Until(`document.querySelector("[data-table=chart-slots] tbody").rows.length > 2`)
	want := webtest.Value[[]string](b, rowsOnServer)
	b.Until(fmt.Sprintf(`document.querySelector("[data-table=chart-slots] tbody").innerText.endsWith(%q)`, strings.Join(want, "\n")))
	if len(want) == 0 {
		t.Error("there is nothing to compare with what the script wrote")
	}

	b.Do(chromedp.SetValue(chromedp.CSS(`[name="threads"]`), "6"), chromedp.SetValue(chromedp.CSS(`[name="hold"]`), "3s"),
		chromedp.SetValue(chromedp.CSS(`[name="timeout"]`), "1s"), chromedp.Click(chromedp.CSS(`[action="/test/pool-stress"] button`)))
	b.Until(`document.querySelector("[data-text=leases]").textContent === "2 of 2"`)
	b.Until(`Math.max(...columns.waiting) === 4`)
	b.Until(`document.getElementById("test-result").textContent.includes('"failures": 4')`)
	b.MustBeUntroubled()

	b.Click(`input[value="persistent"]`)
	if !webtest.Value[bool](b, `document.getElementById("id_persistent_workers").offsetParent && !document.getElementById("id_pool_max_size").offsetParent`) {
		t.Error("the sizes that are shown are not those of the chosen strategy")
	}
	b.Do(chromedp.SetValue(chromedp.CSS("#id_persistent_workers"), "3"))
	b.Press("#control-form button")
	b.Until(isLive)
	b.Until(`document.body.innerText.includes("ada switched strategy from pool to persistent, persistent.workers from 0 to 3")`)
	b.Until(`document.querySelector("[data-text=leases]").textContent.endsWith("of 3")`)
	b.MustBeUntroubled()

	if _, err := chromedp.Call(b.Tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.Visit(connections)
	if !webtest.Value[bool](b, `document.getElementById("refresh").offsetParent && document.querySelector("[data-table=chart-slots]").offsetParent && true`) {
		t.Error("without JavaScript there is no table under a chart, or no way to refresh")
	}
	b.Shoot("connections-without-script")
}

func TestTheDashboardIsAccessibleAndFitsThePhone(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: smallSlots})
	cfg := server.Config(t)
	s := boardOn(t, cfg, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize = 3 })
		c.Test.MaxHold = 5 * time.Minute
	})
	b := webtest.Open(t, s.url)
	b.Login("ada", testPassword)
	look := func(state string) {
		for _, l := range webtest.Looks {
			b.LookAs(l)
			b.Visit(connections)
			b.Until(isLive)
			b.MustSuitEverybody("connections-" + state)
			b.MustBeUntroubled()
		}
	}
	b.Visit(connections)
	b.Until(`document.querySelector(".plot canvas")?.clientWidth > 360`)
	b.LookAs(webtest.Look{Width: 360, Scheme: "light"}) // without reloading the page
	b.Until(`document.querySelector(".plot canvas").clientWidth < 360`)
	b.MustBeUntroubled()
	ctx, end := context.WithCancel(t.Context())
	stress := make(chan error, 1)
	go func() {
		_, err := s.send(ctx, fresh, "GET", "/test/pool-stress?threads=9&hold=4m", nil)
		stress <- err
	}()
	dbtest.Eventually(t, "they wait", func() bool { return s.DB().Stat().Waiting > 0 })
	look("stress")
	end()
	if err := <-stress; !errors.Is(err, context.Canceled) {
		t.Errorf("the stress ended before the page was looked at: %v", err)
	}
	if _, err := s.DB().Exec(t.Context(), "SELECT 1"); err != nil { // waits until a place is free
		t.Error(err)
	}
	s.reconfigure(func(c *config.Database) { perRequest(c) })
	fillUp(t, cfg)
	for range 3 {
		s.get("/polls/", "Accept", "text/html")
	}
	look("exhausted")
	b.LookAs(webtest.Look{Width: 360, Scheme: "light"})
	b.Do(chromedp.SetValue(chromedp.CSS("#id_per_request_max_size"), "many"))
	b.Press("#control-form button")
	b.Until(isLive)
	b.MustSuitEverybody("connections-mistake")
}
