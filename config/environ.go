package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// The variables with their own names, besides libpq's. The DDTB_ variables, one for each key, override all others.
var (
	djangoVariables = []struct{ name, key string }{ // keys of the default database
		{"DB_MAX_CONNS", "pool.max_size"},
		{"CONN_MAX_AGE", "persistent.conn_max_age"},
	}
	otelVariables = []struct{ name, key, suffix string }{ // complete keys; suffix is appended to the value
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "tracing.endpoint", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "tracing.endpoint", "/v1/traces"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "tracing.headers", ""},
		{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "tracing.headers", ""},
	}
)

const defaultDatabasePrefix = "databases.default."

// readEnvironment is the second layer, which has its own sublayers, by increasing priority.
func (l *loader) readEnvironment() {
	l.layer++
	l.readLibpq()
	l.layer++
	url, problem := parseDatabaseURL(l.env["DATABASE_URL"])
	if problem != "" {
		l.fail(Origin{Variable: "DATABASE_URL"}, "", "%s", problem)
	}
	l.readService(url)
	l.layer++
	l.setAll(url, Origin{Variable: "DATABASE_URL"})
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

// readOpenTelemetry uses the supported values. It warns about others without failing: these variables are set for every
// program of a machine, whose collector may require gRPC ("localhost:4317"), which is not supported here. The values
// are not shown, because a URL may contain a password.
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
			l.setOrigin(v.key, Origin{Variable: v.name})
		}
	}
	if off := "OTEL_SDK_DISABLED"; strings.EqualFold(l.env[off], "true") {
		l.set(l.byName["tracing.endpoint"], "", Origin{Variable: off})
	}
}

// warnOfUnknown warns about DDTB_ variables that set nothing. They are not errors: they may belong to a different
// version.
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
		if meant := Nearest(name, known); meant != "" {
			hint = "did you mean " + meant + "?"
		}
		l.warn("environment variable %s sets nothing: %s", shorten(name), hint)
	}
}

// setAll sets keys of the default database to values that are never shown.
func (l *loader) setAll(settings []setting, o Origin) {
	settings, problem := withHosts(settings)
	if problem != "" {
		l.fail(o, "", "%s", problem)
	}
	for _, s := range settings {
		if s.key == serviceKey || s.key == "" {
			continue
		}
		name, before := defaultDatabasePrefix+s.key, len(l.mistakes)
		l.setText(name, s.value, o)
		if len(l.mistakes) > before { // the value may be a part of a password
			l.mistakes[before].Message = l.byName[name].unshown()
		}
	}
}

type setting struct{ key, value string }

const brokenURL = "this can't be read as postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=…; " +
	"in user, password and name these characters must be percent-encoded: % is %25, @ is %40, / is %2F, : is %3A, ? is %3F, # is %23"

// parseDatabaseURL parses a URL as libpq does. net/url would reject the percent-encoded directory of a socket as the
// host, and its errors quote the URL including the password. Here problems only quote the names of parameters.
func parseDatabaseURL(text string) (settings []setting, problem string) {
	if text == "" {
		return nil, ""
	}
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
	user, password, _ := strings.Cut(authority[:max(i, 0)], ":")
	host, port := splitHosts(authority[i+1:])
	settings = []setting{{"user", user}, {"password", password}, {"host", host}, {"port", port}, {"name", name}}
	// An unescaped / or ? in a password ends it too early, and leaves the @ behind.
	if strings.ContainsAny(name+query, "@") || strings.Contains(text, "#") || strings.Contains(name, "/") {
		return nil, brokenURL
	}
	for parameter := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		if name == "" {
			continue
		}
		key, problem := keyOf(name, value)
		if problem != "" {
			return nil, problem
		}
		settings = append(settings, setting{key, value})
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
