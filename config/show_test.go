package config

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ddtb/db"
)

const everything = `
[databases.default]
name = "ddtb \" \\ ü"
password = "hunter2"
host = "/var/run/postgresql"
strategy = "persistent"
pool = {timeout = 0.25, max_lifetime = "1h30m"}
persistent = {conn_max_age = "none"}
[databases.replica]
hosts = ["b", "c:6000"]
port = 7000
password = "hunter2"
[server]
trusted_proxies = ["10.0.0.1", "fe80::/10"]
[sentry]
dsn = "https://hunter2@example.org/1"
traces_sample_rate = 1
[tracing]
endpoint = "http://localhost:4318"
headers = "api-key=hunter2"
`

func TestWhatIsShownLoadsAgain(t *testing.T) {
	c := mustLoad(t, everything)
	var shown strings.Builder
	if err := c.WriteTOML(&shown); err != nil {
		t.Fatal(err)
	}
	equal(t, "a secret is shown", leaks(shown.String(), "hunter2"), false)
	again := mustLoad(t, shown.String())
	for name, d := range c.Databases {
		d.Password = ""
		c.Databases[name] = d
	}
	c.Sentry.DSN, c.Tracing.Headers = "", ""
	equal(t, "what was loaded again", values(*again), values(*c))
}

func TestShowNamesEveryOrigin(t *testing.T) {
	c := mustLoad(t, everything, "DB_MAX_CONNS=7")
	name := func(path string) {
		for key, o := range c.Origins {
			if o.File != "" {
				o.File = path
				c.Origins[key] = o
			}
		}
		c.File = path
	}
	name("F")
	var shown strings.Builder
	if err := c.WriteTOML(&shown); err != nil {
		t.Fatal(err)
	}
	got := shown.String()
	for _, want := range []string{
		"# The configuration in force. File: F\n\n[databases.default]\nname = ",
		`# password = "[redacted]"` + strings.Repeat(" ", 16) + "# F:4\n",
		`sslmode = "prefer"` + strings.Repeat(" ", 23) + "# default\n",
		"\n[databases.default.pool]\n",
		"max_size = 7" + strings.Repeat(" ", 29) + "# environment variable DB_MAX_CONNS\n",
		`timeout = "250ms"` + strings.Repeat(" ", 24) + "# F:7\n",
		`max_lifetime = "1h30m"` + strings.Repeat(" ", 19) + "# F:7\n",
		"\n[databases.replica]\n",
		`trusted_proxies = ["10.0.0.1", "fe80::/10"] # F:14` + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	long := "/" + strings.Repeat("f", 50)
	name(long)
	shown.Reset()
	if err := c.WriteTOML(&shown); err != nil {
		t.Fatal(err)
	}
	if want := "# The configuration in force. File:\n# " + long + "\n"; !strings.HasPrefix(shown.String(), want) {
		t.Errorf("%q is not the beginning of\n%s", want, &shown)
	}
	if want := "\n# " + long + ":7\ntimeout = \"250ms\"\n"; !strings.Contains(shown.String(), want) {
		t.Errorf("%q is not in\n%s", want, &shown)
	}
}

type brokenPipe struct{}

var errBroken = errors.New("broken")

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }

func TestShowReportsThatItCannotWrite(t *testing.T) {
	c := Default()
	if err := c.WriteTOML(brokenPipe{}); !errors.Is(err, errBroken) {
		t.Errorf("WriteTOML says %v", err)
	}
}

func TestDurationsAreBrief(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"none": db.Forever, "0s": 0, "10s": 10 * time.Second, "10m": 10 * time.Minute, "10h": 10 * time.Hour,
		"1h10m": 70 * time.Minute, "1m30s": 90 * time.Second, "1h0m1s": time.Hour + time.Second,
		"100ms": 100 * time.Millisecond,
	} {
		equal(t, want, brief(d), want)
	}
}
