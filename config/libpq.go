package config

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ddtb/db"
)

// serviceKey stands for libpq's parameter "service". It is not a key: the service's settings are.
const serviceKey = "service"

// parameters are libpq's, of DATABASE_URL and of a service, with their variables and the keys of the default database
// that they set. One without a key is not supported by the driver: only harmless values, which make no difference, are
// accepted. Any other is rejected, because the connection would be less safe or different from what was requested.
var parameters = []struct {
	name, variable, key string
	harmless            []string
}{
	{"host", "PGHOST", "host", nil},
	{"port", "PGPORT", "port", nil},
	{"user", "PGUSER", "user", nil},
	{"password", "PGPASSWORD", "password", nil},
	{"dbname", "PGDATABASE", "name", nil},
	{"sslmode", "PGSSLMODE", "sslmode", nil},
	{"application_name", "PGAPPNAME", "application_name", nil},
	{"connect_timeout", "PGCONNECT_TIMEOUT", "connect_timeout", nil},
	{"target_session_attrs", "PGTARGETSESSIONATTRS", "target_session_attrs", nil},
	{"sslrootcert", "PGSSLROOTCERT", "sslrootcert", nil},
	{"sslcert", "PGSSLCERT", "sslcert", nil},
	{"sslkey", "PGSSLKEY", "sslkey", nil},
	{"channel_binding", "PGCHANNELBINDING", "channel_binding", nil},
	{"options", "PGOPTIONS", "options", nil},
	{"keepalives_idle", "", "keepalive.idle", nil},
	{"keepalives_interval", "", "keepalive.interval", nil},
	{"keepalives_count", "", "keepalive.count", nil},
	{"hostaddr", "PGHOSTADDR", "", nil},
	{"passfile", "", "", nil}, // PGPASSFILE works
	{"require_auth", "PGREQUIREAUTH", "", nil},
	{"requirepeer", "PGREQUIREPEER", "", nil},
	{"requiressl", "PGREQUIRESSL", "", []string{"0"}},
	{"sslcompression", "PGSSLCOMPRESSION", "", []string{"0"}},
	{"sslcrl", "PGSSLCRL", "", nil},
	{"sslcrldir", "PGSSLCRLDIR", "", nil},
	{"sslpassword", "", "", nil},
	{"sslcertmode", "PGSSLCERTMODE", "", []string{"allow"}},
	{"sslsni", "PGSSLSNI", "", []string{"1"}},
	{"sslnegotiation", "PGSSLNEGOTIATION", "", []string{"postgres"}},
	{"ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", "", []string{"TLSv1", "TLSv1.1", "TLSv1.2"}}, // we demand 1.2
	{"ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", "", []string{"TLSv1.3"}},
	{"gssencmode", "PGGSSENCMODE", "", []string{"disable", "prefer"}},
	{"gssdelegation", "PGGSSDELEGATION", "", []string{"0"}},
	{"gsslib", "PGGSSLIB", "", nil},
	{"krbsrvname", "PGKRBSRVNAME", "", []string{"postgres"}},
	{"load_balance_hosts", "PGLOADBALANCEHOSTS", "", []string{"disable"}},
	{"min_protocol_version", "PGMINPROTOCOLVERSION", "", []string{"3.0"}},
	{"max_protocol_version", "PGMAXPROTOCOLVERSION", "", []string{"3.0"}},
	{"client_encoding", "PGCLIENTENCODING", "", []string{"UTF8", "utf8", "UTF-8", "utf-8", "auto"}},
	{"replication", "", "", []string{"false", "off", "no", "0"}},
	{"keepalives", "", "", []string{"1"}},
	{"tcp_user_timeout", "", "", []string{"0"}},
	{"datestyle", "PGDATESTYLE", "", nil},
	{"geqo", "PGGEQO", "", nil},
	{"fallback_application_name", "", "", nil},
}

var parameterName = regexp.MustCompile(`^[a-z_]{1,40}$`)

// keyOf returns the key that a libpq parameter sets, "" for one without effect, or why there is none. It shows no
// value.
func keyOf(parameter, value string) (key, problem string) {
	if parameter == serviceKey {
		return serviceKey, ""
	}
	var known []string
	for _, p := range parameters {
		switch {
		case p.name == parameter && (p.key != "" || slices.Contains(p.harmless, value)):
			return p.key, ""
		case p.name == parameter:
			return "", notHonoured("parameter "+parameter, p.harmless)
		case p.key != "":
			known = append(known, p.name)
		}
	}
	slices.Sort(known)
	allowed := "; allowed are " + strings.Join(known, ", ") + " and " + serviceKey
	if !parameterName.MatchString(parameter) {
		return "", "it has an unknown parameter" + allowed
	}
	return "", "unknown parameter " + parameter + allowed
}

func notHonoured(what string, harmless []string) string {
	if len(harmless) == 0 {
		return what + " can't be honoured: remove it"
	}
	return what + " can't be honoured: remove it, or set it to " + harmless[0]
}

// readLibpq reads libpq's variables. It rejects one with which psql would connect differently.
func (l *loader) readLibpq() {
	hosts, problem := withHosts([]setting{{"host", l.env["PGHOST"]}, {"port", l.env["PGPORT"]}})
	if problem != "" {
		l.fail(Origin{Variable: "PGHOST"}, "", "%s", problem)
	}
	several := len(hosts) != 2
	if len(hosts) == 1 {
		l.setText(defaultDatabasePrefix+"hosts", hosts[0].value, Origin{Variable: "PGHOST"})
	}
	for _, p := range parameters {
		value, o := l.env[p.variable], Origin{Variable: p.variable}
		switch {
		case p.key == "" && value != "" && !slices.Contains(p.harmless, value):
			l.fail(o, "", "%s", notHonoured("this", p.harmless))
		case p.key != "" && !(several && (p.key == "host" || p.key == "port")):
			l.setText(defaultDatabasePrefix+p.key, value, o)
		}
	}
}

// withHosts combines libpq's comma-separated hosts and ports into the key "hosts".
func withHosts(settings []setting) (with []setting, problem string) {
	last := map[string]string{}
	for _, s := range settings {
		last[s.key] = cmp.Or(s.value, last[s.key])
	}
	hosts, ports := strings.Split(last["host"], ","), strings.Split(last["port"], ",")
	if len(hosts) == 1 {
		return settings, ""
	}
	if len(ports) != 1 && len(ports) != len(hosts) {
		return nil, fmt.Sprintf("there are %d hosts and %d ports: write one port for all, or one for each", len(hosts), len(ports))
	}
	for i, host := range hosts {
		if port := ports[min(i, len(ports)-1)]; port != "" {
			hosts[i] = net.JoinHostPort(host, port)
		}
	}
	with = slices.DeleteFunc(slices.Clone(settings), func(s setting) bool { return s.key == "host" || s.key == "port" })
	return append(with, setting{"hosts", strings.Join(hosts, ",")}), ""
}

// splitHosts separates the hosts of a URL from their ports. Both are comma-separated lists if there are several.
func splitHosts(authority string) (hosts, ports string) {
	var names, numbers []string
	for one := range strings.SplitSeq(authority, ",") {
		host, port := db.SplitHost(one)
		names, numbers = append(names, host), append(numbers, port)
	}
	if ports = strings.Join(numbers, ","); strings.Trim(ports, ",") == "" {
		ports = ""
	}
	return strings.Join(names, ","), ports
}

// readService reads the service that DATABASE_URL or PGSERVICE names from PGSERVICEFILE or ~/.pg_service.conf. As in
// libpq, it overrides the PG variables. Explicit settings override it: the URL's other parameters, and our own
// variables and flags.
func (l *loader) readService(url []setting) {
	name, o := l.env["PGSERVICE"], Origin{Variable: "PGSERVICE"}
	for _, s := range url {
		if s.key == serviceKey && s.value != "" {
			name, o = s.value, Origin{Variable: "DATABASE_URL"}
		}
	}
	if name == "" {
		return
	}
	path := cmp.Or(l.env["PGSERVICEFILE"], filepath.Join(l.env["HOME"], ".pg_service.conf"))
	content, _, err := db.ReadFile(path, maxFile)
	if err != nil {
		l.fail(o, "", "the service file %s %v: set PGSERVICEFILE to yours", path, err)
		return
	}
	settings, problem := parseService(string(content), name)
	if problem != "" {
		l.fail(o, "", "%s: %s", path, problem)
		return
	}
	l.setAll(settings, o)
}

// parseService returns the settings of one service. It shows no value.
func parseService(text, name string) (settings []setting, problem string) {
	in, found := false, false
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			in = !found && line == "["+name+"]"
			found = found || in
		case in:
			parameter, value, is := strings.Cut(line, "=")
			if !is {
				return nil, fmt.Sprintf("line %d is not NAME=VALUE", number)
			}
			value = strings.TrimSpace(value)
			key, problem := keyOf(strings.TrimSpace(parameter), value)
			if key == serviceKey {
				problem = "a service can't name another"
			}
			if problem != "" {
				return nil, fmt.Sprintf("line %d: %s", number, problem)
			}
			settings = append(settings, setting{key, value})
		}
	}
	if !found {
		return nil, fmt.Sprintf("there is no [%s] in it, and no other file is read", shorten(name))
	}
	return settings, ""
}
