package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ddtb/db"
)

func TestEveryKeyHasAVariableOfItsOwn(t *testing.T) {
	l := newLoader(Options{})
	variables := map[string]string{}
	for _, k := range l.keys {
		if other, twice := variables[k.variable()]; twice {
			t.Errorf("%s and %s are both %s", other, k.name, k.variable())
		}
		variables[k.variable()] = k.name
	}
	for variable, name := range map[string]string{
		"DDTB_SERVER_ADDR":                           "server.addr",
		"DDTB_TEST_ENABLED":                          "test.enabled",
		"DDTB_DATABASES_DEFAULT_POOL_MAX_SIZE":       "databases.default.pool.max_size",
		"DDTB_DATABASES_REPLICA_KEEPALIVE_COUNT":     "databases.replica.keepalive.count",
		"DDTB_MAIL_LIMIT_PER_HOUR":                   "mail.limit.per_hour",
		"DDTB_DATABASES_DEFAULT_PER_REQUEST_TIMEOUT": "databases.default.per_request.timeout",
	} {
		equal(t, variable, variables[variable], name)
	}
}

func TestVariablesSetKeys(t *testing.T) {
	want := Default()
	d := want.Databases["default"]
	d.Host, d.Port, d.User, d.Password, d.Name = "h", 1, "u", " p", "n"
	d.SSLMode, d.ApplicationName, d.ConnectTimeout = "require", "a", 7*time.Second
	d.Pool.MaxSize, d.Persistent.ConnMaxAge, d.Persistent.Reap = 25, db.Forever, true
	want.Databases["default"] = d
	want.Server.TrustedProxies = []string{"10.0.0.1", "10.1.0.0/16"}
	want.Sentry.TracesSampleRate = 0.5
	want.Mail.SubjectPrefix = "[x] "
	c := mustLoad(
		t, "",
		"PGHOST=h", "PGPORT=1", "PGUSER=u", "PGPASSWORD= p", "PGDATABASE=n", "PGSSLMODE=require", "PGAPPNAME=a",
		"PGCONNECT_TIMEOUT=7", "DB_MAX_CONNS=25", "CONN_MAX_AGE=None", "DDTB_SERVER_TRUSTED_PROXIES=10.0.0.1, 10.1.0.0/16,",
		"DDTB_DATABASES_DEFAULT_PERSISTENT_REAP=True", "DDTB_SENTRY_TRACES_SAMPLE_RATE=0.5", "DDTB_SERVER_REPLICAS=",
		"DDTB_MAIL_SUBJECT_PREFIX=[x] ", "DDTB_CONFIG=ignored",
	)
	equal(t, "the configuration", values(*c), values(want))
	equal(t, "the number of warnings", len(c.Warnings), 1) // CONN_MAX_AGE is void under pool
}

func TestMistakesOfTheEnvironment(t *testing.T) {
	const where = "environment variable "
	for _, tt := range []struct{ environ, want string }{
		{
			"DB_MAX_CONNS=many",
			`databases.default.pool.max_size: found "many"; allowed is "auto", or a whole number from 1 to 10000`,
		},
		{
			"DB_MAX_CONNS=0",
			`databases.default.pool.max_size: found 0; allowed is "auto", or a whole number from 1 to 10000`,
		},
		{
			"DB_MAX_CONNS=1.5",
			`databases.default.pool.max_size: found 1.5; allowed is "auto", or a whole number from 1 to 10000`,
		},
		{
			"CONN_MAX_AGE=-1",
			`databases.default.persistent.conn_max_age: found -1; allowed is a duration as "10s", or a number of seconds, "none", or from 0 to 8760h`,
		},
		{
			"PGPORT=5432,5433",
			`databases.default.port: found "5432,5433"; allowed is a whole number from 1 to 65535`,
		},
		{
			"PGSSLMODE=on",
			`databases.default.sslmode: found "on"; allowed is "disable", "allow", "prefer", "require", "verify-ca" or "verify-full"`,
		},
		{
			"PGPASSWORD=a\x00b",
			"databases.default.password: found a value that is not shown here; allowed is a string without NUL characters",
		},
		{
			"DDTB_TEST_ENABLED=maybe",
			`test.enabled: found "maybe"; allowed is true or false`,
		},
		{
			"DDTB_DATABASES_DEFAULT_POOL_MIN_SIZE=20",
			"databases.default.pool.min_size: 20 (environment variable DDTB_DATABASES_DEFAULT_POOL_MIN_SIZE) is more than max_size, 10 (default)",
		},
		{
			"DDTB_DATABASES_REPLICA_NAME=r",
			"databases.replica.host: is missing: name the replica's host, or several as hosts",
		},
		{
			"DDTB_SERVER_TRUSTED_PROXIES=10.0.0.1,x",
			`server.trusted_proxies: found "x"; allowed is a list of addresses and ranges, as "10.0.0.1" and "10.0.0.0/8"`,
		},
	} {
		t.Run(strings.ToValidUTF8(strings.ReplaceAll(tt.environ, "\x00", "NUL"), ""), func(t *testing.T) {
			_, err := Load(Options{Environ: []string{tt.environ}})
			name, _, _ := strings.Cut(tt.environ, "=")
			equal(t, "the message", fmt.Sprint(err), where+name+": "+tt.want)
		})
	}
}

func TestOpenTelemetrysVariablesSetTheCollector(t *testing.T) {
	environ := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://collector:4318/otlp", "OTEL_EXPORTER_OTLP_HEADERS=api-key=a%2C%20b, x = y ,"}
	c := mustLoad(t, "[tracing]\nendpoint = 'http://file:4318'\n", environ...)
	equal(t, "the endpoint", c.Tracing.Endpoint, "https://collector:4318/otlp")
	equal(t, "the headers", c.Tracing.HeaderMap(), map[string]string{"api-key": "a, b", "x": "y"})
	c = mustLoad(t, "", append(environ, "DDTB_TRACING_ENDPOINT=http://ours:4318", "DDTB_TRACING_SAMPLE_RATE=0.25")...)
	equal(t, "the endpoint, with our variable", c.Tracing.Endpoint, "http://ours:4318")
	equal(t, "the rate", c.Tracing.SampleRate, 0.25)
	equal(t, "where it comes from", c.Origins["tracing.headers"].String(), "environment variable OTEL_EXPORTER_OTLP_HEADERS")
	c = mustLoad(t, "", append(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://traces:4318/v1/traces", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=x=z/")...)
	equal(t, "the endpoint for traces", c.Tracing.Endpoint, "http://traces:4318")
	equal(t, "the headers for traces", c.Tracing.HeaderMap(), map[string]string{"x": "z/"})
	equal(t, "the warnings", c.Warnings, nil)
}

func TestOpenTelemetryCanBeTurnedOff(t *testing.T) {
	environ := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", "OTEL_SDK_DISABLED=True"}
	c := mustLoad(t, "[tracing]\nendpoint = 'http://file:4318'\n", environ...)
	equal(t, "the endpoint", c.Tracing.Endpoint, "")
	equal(t, "where it comes from", c.Origins["tracing.endpoint"].String(), "environment variable OTEL_SDK_DISABLED")
	c = mustLoad(t, "", append(environ, "DDTB_TRACING_ENDPOINT=http://ours:4318")...)
	equal(t, "the endpoint, with our variable", c.Tracing.Endpoint, "http://ours:4318")
	c = mustLoad(t, "", environ[0], "OTEL_SDK_DISABLED=1")
	equal(t, "the endpoint, as only true turns it off", c.Tracing.Endpoint, "http://collector:4318")
}

func TestWhatOpenTelemetrysVariablesMeanForOthersIsWarnedOf(t *testing.T) {
	const endpoint, headers = "OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_EXPORTER_OTLP_HEADERS="
	for _, wrong := range []string{
		endpoint + "localhost:4317", endpoint + "collector", endpoint + "http://u:hunter2@h:4318", endpoint + "http://h/?hunter2",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://hunter2:4318/other", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=localhost:4317", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=/v1/traces",
		headers + "a", headers + "=a", headers + "a b=hunter2", headers + "a=%zz", headers + "a=b%0d%0aX: y", headers + "a=b,c",
	} {
		c := mustLoad(t, "[tracing]\nendpoint = 'http://file:4318'\nheaders = 'a=b'\n", wrong)
		equal(t, wrong+": the endpoint", c.Tracing.Endpoint, "http://file:4318")
		equal(t, wrong+": the headers", c.Tracing.Headers.Reveal(), "a=b")
		name, _, _ := strings.Cut(wrong, "=")
		warned := strings.Join(c.Warnings, "\n")
		equal(t, wrong+": it is warned of", strings.HasPrefix(warned, "environment variable "+name+" is not used for tracing."), true)
		equal(t, wrong+": its value is shown", strings.Contains(warned, "hunter2"), false)
	}
}

func TestUnknownVariablesAreWarnedOf(t *testing.T) {
	c := mustLoad(t, "", "DDTB_SERVER_ADRR=x", "DDTB_CONFG=x", "DDTB_FOO=x", "OTHER=x")
	equal(t, "the warnings", c.Warnings, []string{
		"environment variable DDTB_CONFG sets nothing: did you mean DDTB_CONFIG?",
		"environment variable DDTB_FOO sets nothing: see ddtb.toml for the keys",
		"environment variable DDTB_SERVER_ADRR sets nothing: did you mean DDTB_SERVER_ADDR?",
	})
}

func TestDatabaseURLIsTakenApart(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:p@h:1/n":                   "host=h name=n password=p port=1 user=u",
		"postgresql://u@h/n":                     "host=h name=n user=u",
		"postgres://":                            "",
		"postgres:///n":                          "name=n",
		"postgres://u:p%40%2F%3A%25%20+@h/n%2Fm": "host=h name=n/m password=p@/:% + user=u",
		"postgres://u:a@b@h":                     "host=h password=a@b user=u",
		"postgres://u:p@[::1]:1/n":               "host=::1 name=n password=p port=1 user=u",
		"postgres://%2Fvar%2Frun%2Fpostgresql/n": "host=/var/run/postgresql name=n",
		"postgres://h1:1,h2:2/n":                 `hosts=[h1:1", "h2:2] name=n`,
		"postgres://h1,[::1]:2/n":                `hosts=[h1:5432", "[::1]:2] name=n`,
		"postgres://u@/n?host=h1,h2&port=7":      `hosts=[h1:7", "h2:7] name=n user=u`,
		"postgres://h/n?target_session_attrs=read-write&channel_binding=require&sslrootcert=system":  "channel_binding=require host=h name=n sslrootcert=system target_session_attrs=read-write",
		"postgres://h/n?options=-c%20work_mem%3D8MB&sslcert=/a&sslkey=/b&keepalives_idle=9&sslsni=1": "host=h idle=9s name=n options=-c work_mem=8MB sslcert=/a sslkey=/b",
		"postgres://u@/n?host=/tmp&port=2":                                 "host=/tmp name=n port=2 user=u",
		"postgres://h/n?sslmode=disable&connect_timeout=3&":                "connect_timeout=3s host=h name=n sslmode=disable",
		"postgres://h/n?application_name=a%20b&dbname=m&user=u&password=p": "application_name=a b host=h name=m password=p user=u",
	} {
		c := mustLoad(t, "", "DATABASE_URL="+text)
		equal(t, text, setByURL(c), want)
	}
}

// setByURL lists what DATABASE_URL set, with the password.
func setByURL(c *Config) string {
	d := c.Databases["default"]
	var set []string
	for _, k := range keysOf(c, map[string]*Database{"default": &d}) {
		if c.Origins[k.name].Variable != "DATABASE_URL" {
			continue
		}
		_, name := split(k.name)
		text := strings.ReplaceAll(strings.Trim(k.text(), `"`), `["`, "[")
		text = strings.ReplaceAll(text, `"]`, "]")
		if p, is := k.target.(*Secret); is {
			text = p.Reveal()
		}
		set = append(set, name+"="+text)
	}
	slices.Sort(set)
	return strings.Join(set, " ")
}

func TestMistakesOfDatabaseURL(t *testing.T) {
	const (
		where      = "environment variable DATABASE_URL: "
		parameters = "; allowed are application_name, channel_binding, connect_timeout, dbname, host, keepalives_count, keepalives_idle, " +
			"keepalives_interval, options, password, port, sslcert, sslkey, sslmode, sslrootcert, target_session_attrs, user and service"
		hidden = "found a value that is not shown here; allowed is "
		modes  = `"disable", "allow", "prefer", "require", "verify-ca" or "verify-full"`
	)
	for text, want := range map[string]string{
		"mysql://u:hunter2@h/n":                 "this begins with neither postgres:// nor postgresql://",
		"host=h password=hunter2":               "this begins with neither postgres:// nor postgresql://",
		"postgres://u:hunter/2@h/n":             brokenURL,
		"postgres://u:hunter?2@h/n":             brokenURL,
		"postgres://u:hunter#2@h/n":             brokenURL,
		"postgres://u:hunter%2@h/n":             brokenURL,
		"postgres://u:hunter%zz@h/n":            brokenURL,
		"postgres://u:12/hunter2@h/n":           brokenURL,
		"postgres://u:a?hunter=2@h/n":           brokenURL,
		"postgres://u:hunter2":                  "databases.default.port: " + hidden + "a whole number from 1 to 65535",
		"postgres://u:p@h1:1,h2:hunter2/n":      "databases.default.hosts: " + hidden + formats["hosts"].description,
		"postgres://h1,h2,h3/n?port=1,2":        "there are 3 hosts and 2 ports: write one port for all, or one for each",
		"postgres://h/n?sslcrl=hunter2":         "parameter sslcrl can't be honoured: remove it",
		"postgres://h/n?gssencmode=require":     "parameter gssencmode can't be honoured: remove it, or set it to disable",
		"postgres://h/n?channel_binding=on":     "databases.default.channel_binding: " + hidden + `"", "disable", "prefer" or "require"`,
		"postgres://u:p@h:70000/n":              "databases.default.port: " + hidden + "a whole number from 1 to 65535",
		"postgres://u:p@h/n?sslmode=on":         "databases.default.sslmode: " + hidden + modes,
		"postgres://u:p@h/n?pool_max_conns=3":   "unknown parameter pool_max_conns" + parameters,
		"postgres://u:p@h/n?Hunter2":            "it has an unknown parameter" + parameters,
		"postgres://u:p@h/n?connect_timeout=-1": "databases.default.connect_timeout: " + hidden + `a duration as "10s", or a number of seconds, from 100ms to 5m`,
	} {
		_, err := Load(Options{Environ: []string{"DATABASE_URL=" + text}})
		equal(t, text, fmt.Sprint(err), where+want)
	}
}

func TestParametersOfAURLAreKeys(t *testing.T) {
	l := newLoader(Options{})
	for _, p := range parameters {
		equal(t, p.name+" sets a key, or none", p.key == "" || l.byName[defaultDatabasePrefix+p.key] != nil, true)
	}
}
