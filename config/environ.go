package config

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// The variables with names of their own, and the keys of the default database that they set, the weakest first:
// libpq's, DATABASE_URL, and those that Django deployments use; and those of OpenTelemetry. Over all of them go the
// DDTB_ variables, one for each key.
var (
	libpqVariables = []struct{ name, key string }{
		{"PGHOST", "host"},
		{"PGPORT", "port"},
		{"PGUSER", "user"},
		{"PGPASSWORD", "password"},
		{"PGDATABASE", "name"},
		{"PGSSLMODE", "sslmode"},
		{"PGAPPNAME", "application_name"},
		{"PGCONNECT_TIMEOUT", "connect_timeout"},
	}
	djangoVariables = []struct{ name, key string }{
		{"DB_MAX_CONNS", "pool.max_size"},
		{"CONN_MAX_AGE", "persistent.conn_max_age"},
	}
	otelVariables = []struct{ name, key, suffix string }{ // their keys are whole; the suffix is what we add, and they have
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "tracing.endpoint", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "tracing.endpoint", "/v1/traces"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "tracing.headers", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "tracing.headers", ""},
	}
	urlParameters = map[string]string{
		"host":             "host",
		"port":             "port",
		"user":             "user",
		"password":         "password",
		"dbname":           "name",
		"sslmode":          "sslmode",
		"application_name": "application_name",
		"connect_timeout":  "connect_timeout",
	}
)

const defaultDatabasePrefix = "databases.default."

// readEnvironment is the second layer, and has layers of its own.
func (l *loader) readEnvironment() {
	l.layer++
	for _, v := range libpqVariables {
		l.setText(defaultDatabasePrefix+v.key, l.env[v.name], Origin{Variable: v.name})
	}
	l.layer++
	l.readDatabaseURL(l.env["DATABASE_URL"])
	for _, v := range djangoVariables {
		l.setText(defaultDatabasePrefix+v.key, l.env[v.name], Origin{Variable: v.name})
	}
	l.readOpenTelemetry()
	l.layer++
	for _, k := range l.keys {
		l.setText(k.name, l.env[k.variable()], Origin{Variable: k.variable()})
	}
	l.warnOfUnknown()
}

// readOpenTelemetry takes what can be used. The rest is warned of, and does not stop us: these variables are set for
// every program of a machine, whose collector may want gRPC ("localhost:4317"), which we don't speak. What they hold is
// not shown, since a URL may have a password in it.
func (l *loader) readOpenTelemetry() {
	for _, v := range otelVariables {
		text := strings.TrimSpace(l.env[v.name])
		if text == "" {
			continue
		}
		k := l.byName[v.key]
		base, has := strings.CutSuffix(text, v.suffix)
		switch {
		case !has:
			l.warn("environment variable %s is not used for %s: it does not end in %s, where traces are sent to", v.name, v.key, v.suffix)
		case base == "" || k.set(base) != "":
			l.warn("environment variable %s is not used for %s, where traces go by OTLP over HTTP (mostly port 4318, not gRPC's 4317): allowed is %s",
				v.name, v.key, k.allowed())
		default:
			l.cfg.Origins[v.key], l.layers[v.key] = Origin{Variable: v.name}, l.layer
		}
	}
	if off := "OTEL_SDK_DISABLED"; strings.EqualFold(l.env[off], "true") {
		l.set(l.byName["tracing.endpoint"], "", Origin{Variable: off})
	}
}

// warnOfUnknown warns of DDTB_ variables that set nothing. It does not refuse them: they may be another version's.
func (l *loader) warnOfUnknown() {
	known := []string{"DDTB_CONFIG"}
	for _, k := range l.keys {
		known = append(known, k.variable())
	}
	for _, name := range slices.Sorted(maps.Keys(l.env)) {
		if !strings.HasPrefix(name, "DDTB_") || slices.Contains(known, name) {
			continue
		}
		hint := "see ddtb.toml for the keys"
		if meant := nearest(name, known); meant != "" {
			hint = "did you mean " + meant + "?"
		}
		l.warn("environment variable %s sets nothing: %s", shorten(name), hint)
	}
}

// readDatabaseURL takes a URL apart as libpq does. net/url would refuse the percent-encoded folder of a socket
// as the host, and it quotes the URL, password included, in its errors. So nothing of it is quoted here but the
// names of parameters.
func (l *loader) readDatabaseURL(text string) {
	if text == "" {
		return
	}
	settings, problem := parseDatabaseURL(text)
	if problem != "" {
		l.fail(Origin{Variable: "DATABASE_URL"}, "", "%s", problem)
	}
	for _, s := range settings {
		l.setHidden(defaultDatabasePrefix+s.key, s.value, Origin{Variable: "DATABASE_URL"})
	}
}

// setHidden is setText for a value that may be a piece of a password, and is not shown.
func (l *loader) setHidden(name, text string, o Origin) {
	if text == "" {
		return
	}
	k := l.byName[name]
	if k.set(k.parse(text)) != "" {
		l.fail(o, name, "found a value that is not shown here; allowed is %s", k.allowed())
		return
	}
	l.cfg.Origins[name], l.layers[name] = o, l.layer
}

type setting struct{ key, value string }

const brokenURL = "this can't be read as postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=…; " +
	"in user, password and name these characters must be percent-encoded: % is %25, @ is %40, / is %2F, : is %3A, ? is %3F, # is %23"

var parameterName = regexp.MustCompile(`^[a-z_]{1,40}$`)

func parseDatabaseURL(text string) (settings []setting, problem string) {
	rest, is := strings.CutPrefix(text, "postgres://")
	if !is {
		rest, is = strings.CutPrefix(text, "postgresql://")
	}
	if !is {
		return nil, "this begins with neither postgres:// nor postgresql://"
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, name, _ := strings.Cut(rest, "/")
	i := strings.LastIndexByte(authority, '@')
	userinfo, host := authority[:max(i, 0)], url.URL{Host: authority[i+1:]}
	user, password, _ := strings.Cut(userinfo, ":")
	settings = []setting{
		{"user", user}, {"password", password}, {"host", host.Hostname()}, {"port", host.Port()}, {"name", name},
	}
	// A password with a bare / or ? in it has ended too early, and left the @ behind.
	if strings.ContainsAny(name+query, "@") || strings.Contains(text, "#") || strings.Contains(name, "/") {
		return nil, brokenURL
	}
	for parameter := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		key, known := urlParameters[name]
		switch {
		case known:
			settings = append(settings, setting{key, value})
		case name != "":
			return nil, unknownParameter(name)
		}
	}
	for i, s := range settings {
		decoded, err := url.PathUnescape(s.value)
		if err != nil {
			return nil, brokenURL
		}
		settings[i].value = decoded
	}
	return settings, ""
}

func unknownParameter(name string) string {
	allowed := strings.Join(slices.Sorted(maps.Keys(urlParameters)), ", ")
	if !parameterName.MatchString(name) {
		return "it has an unknown parameter; allowed are " + allowed
	}
	return "unknown parameter " + name + "; allowed are " + allowed
}
