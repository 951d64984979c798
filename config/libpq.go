package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"ddtb/db"
)

// serviceKey stands for libpq's parameter "service". It is not a key: the service's settings are.
const serviceKey = "service"

// ignored is the key of a parameter without effect.
const ignored = ""

// unsupported are libpq's parameters that the driver does not support, with the values that make no difference. Those
// values are accepted; any other is rejected, because the connection would be less safe or different from what was
// requested.
var unsupported = []struct {
	parameter, variable string
	harmless            []string
}{
	{"hostaddr", "PGHOSTADDR", nil},
	{"passfile", "", nil}, // PGPASSFILE works
	{"require_auth", "PGREQUIREAUTH", nil},
	{"requirepeer", "PGREQUIREPEER", nil},
	{"requiressl", "PGREQUIRESSL", []string{"0"}},
	{"sslcompression", "PGSSLCOMPRESSION", []string{"0"}},
	{"sslcrl", "PGSSLCRL", nil},
	{"sslcrldir", "PGSSLCRLDIR", nil},
	{"sslpassword", "", nil},
	{"sslcertmode", "PGSSLCERTMODE", []string{"allow"}},
	{"sslsni", "PGSSLSNI", []string{"1"}},
	{"sslnegotiation", "PGSSLNEGOTIATION", []string{"postgres"}},
	{"ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", []string{"TLSv1", "TLSv1.1", "TLSv1.2"}}, // we demand 1.2
	{"ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", []string{"TLSv1.3"}},
	{"gssencmode", "PGGSSENCMODE", []string{"disable", "prefer"}},
	{"gssdelegation", "PGGSSDELEGATION", []string{"0"}},
	{"gsslib", "PGGSSLIB", nil},
	{"krbsrvname", "PGKRBSRVNAME", []string{"postgres"}},
	{"load_balance_hosts", "PGLOADBALANCEHOSTS", []string{"disable"}},
	{"min_protocol_version", "PGMINPROTOCOLVERSION", []string{"3.0"}},
	{"max_protocol_version", "PGMAXPROTOCOLVERSION", []string{"3.0"}},
	{"client_encoding", "PGCLIENTENCODING", []string{"UTF8", "utf8", "UTF-8", "utf-8", "auto"}},
	{"replication", "", []string{"false", "off", "no", "0"}},
	{"keepalives", "", []string{"1"}},
	{"tcp_user_timeout", "", []string{"0"}},
	{"datestyle", "PGDATESTYLE", nil},
	{"geqo", "PGGEQO", nil},
	{"fallback_application_name", "", nil},
}

// keyOf returns the key that a libpq parameter sets, or why there is none. It shows no value.
func keyOf(parameter, value string) (key, problem string) {
	if key, known := urlParameters[parameter]; known {
		return key, ""
	}
	if parameter == serviceKey {
		return serviceKey, ""
	}
	for _, u := range unsupported {
		if u.parameter == parameter {
			if slices.Contains(u.harmless, value) {
				return ignored, ""
			}
			return "", notHonoured("parameter "+parameter, u.harmless)
		}
	}
	return "", unknownParameter(parameter)
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
	for _, v := range libpqVariables {
		if !several || v.key != "host" && v.key != "port" {
			l.setText(defaultDatabasePrefix+v.key, l.env[v.name], Origin{Variable: v.name})
		}
	}
	for _, u := range unsupported {
		if value := l.env[u.variable]; value != "" && !slices.Contains(u.harmless, value) {
			l.fail(Origin{Variable: u.variable}, "", "%s", notHonoured("this", u.harmless))
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
			hosts[i] = joinHost(host, port)
		}
	}
	with = slices.DeleteFunc(slices.Clone(settings), func(s setting) bool { return s.key == "host" || s.key == "port" })
	return append(with, setting{"hosts", strings.Join(hosts, ",")}), ""
}

func joinHost(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
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
	content, _, err := readFile(path)
	if err != nil {
		l.add(&Mistake{Origin: o, Message: fmt.Sprintf("the service file %s %v: set PGSERVICEFILE to yours", path, err), Err: err})
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
	for line := range strings.Lines(text) {
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
