package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgpassfile" // the driver's

	"ddtb/db"
)

// Options are the sources of the configuration. Loading the same Options again reads the current state of the file.
type Options struct {
	File    string   // of --config; "": DDTB_CONFIG, or the default location
	Environ []string // NAME=VALUE, as in os.Environ; an empty variable counts as unset
	Flags   []Flag   // override everything
}

// Flag is a key set on the command line.
type Flag struct {
	Name  string // as written, "--addr"
	Key   string // "server.addr"; an unknown key is a bug, and panics
	Value string
}

// Path returns the file that Load reads: File, or DDTB_CONFIG, or ddtb.toml in $XDG_CONFIG_HOME or ~/.config. named is
// the source of the name, "--config" or "DDTB_CONFIG". It is "" for the default location, where the file is optional.
// path is "" without a home directory.
func (o Options) Path() (path, named string) {
	env := o.variables()
	switch xdg, home := env["XDG_CONFIG_HOME"], env["HOME"]; {
	case o.File != "":
		return o.File, "--config"
	case env["DDTB_CONFIG"] != "":
		return env["DDTB_CONFIG"], "DDTB_CONFIG"
	case filepath.IsAbs(xdg): // the specification says to ignore a relative one
		return filepath.Join(xdg, "ddtb.toml"), ""
	case home != "":
		return filepath.Join(home, ".config", "ddtb.toml"), ""
	}
	return "", ""
}

// variables returns Environ without empty variables: docker compose passes "" for variables that are unset on its host.
// A line break at the end of a value, left by $'…\n' or a file, is removed.
func (o Options) variables() map[string]string {
	env := map[string]string{}
	for _, assignment := range o.Environ {
		name, value, _ := strings.Cut(assignment, "=")
		if value = db.TrimLineBreak(value); name != "" && value != "" {
			env[name] = value
		}
	}
	return env
}

// Load reads the configuration. Its error, if any, is a Mistakes with all of them; the Config is then nil.
func Load(o Options) (*Config, error) {
	l := newLoader(o)
	l.readFile()
	l.readEnvironment()
	l.readFlags()
	l.chooseHosts()
	l.readPasswordFiles()
	l.inherit()
	l.databases["default"].Budget, l.databases["replica"].Budget = l.cfg.Fleet.Budget, l.cfg.Fleet.Budget
	l.checkCombinations()
	if err := l.mistakes.orNil(); err != nil {
		return nil, err
	}
	return l.config(), nil
}

// loader is a Config being built. Later layers override earlier ones.
type loader struct {
	options   Options
	env       map[string]string
	cfg       Config
	databases map[string]*Database
	replica   Origin // of the header [databases.replica], which suffices to define a replica
	broken    bool   // the file could only be read in part
	schema
	layer    int // the current one
	mistakes Mistakes
}

func newLoader(o Options) *loader {
	l := &loader{
		options:   o,
		env:       o.variables(),
		cfg:       Default(),
		databases: map[string]*Database{},
	}
	for _, name := range databaseNames {
		l.databases[name] = new(db.DefaultSettings())
	}
	l.cfg.Origins = map[string]Origin{}
	l.schema = newSchema(keysOf(&l.cfg, l.databases))
	return l
}

// config returns the result. It has a replica if any source mentions one.
func (l *loader) config() *Config {
	l.cfg.Databases = map[string]Database{"default": *l.databases["default"]}
	if l.hasReplica() {
		l.cfg.Databases["replica"] = *l.databases["replica"]
	}
	return &l.cfg
}

func (l *loader) hasReplica() bool { return l.replicaOrigin() != Origin{} }

// replicaOrigin returns the first mention of a replica, if any.
func (l *loader) replicaOrigin() Origin {
	for _, k := range l.keys {
		if o := l.cfg.Origins[k.name]; strings.HasPrefix(k.name, "databases.replica.") && o != (Origin{}) && !o.inherited {
			return o
		}
	}
	return l.replica
}

func (l *loader) fail(o Origin, key, format string, args ...any) {
	l.mistakes = append(l.mistakes, &Mistake{Origin: o, Key: key, Message: fmt.Sprintf(format, args...)})
}

func (l *loader) warn(format string, args ...any) {
	l.cfg.Warnings = append(l.cfg.Warnings, fmt.Sprintf(format, args...))
}

// set stores a value, from any source, in the type that TOML gives it.
func (l *loader) set(k *key, found any, o Origin) {
	if problem := k.set(found); problem != "" {
		l.fail(o, k.name, "%s", problem)
		return
	}
	l.setOrigin(k.name, o)
	if path, is := k.target.(*string); is && k.allow == "path" {
		*path = l.expand(*path, k, o)
	}
}

func (l *loader) setOrigin(name string, o Origin) {
	o.layer = l.layer
	l.cfg.Origins[name] = o
}

// setText stores text, such as that of a variable or a flag. Empty text sets nothing.
func (l *loader) setText(name, text string, o Origin) {
	if text != "" {
		l.set(l.byName[name], l.byName[name].parse(text), o)
	}
}

// expand replaces ~ by the home directory. A relative path in a file is relative to the file's directory, any other to
// the working directory.
func (l *loader) expand(path string, k *key, o Origin) string {
	rest, inHome := strings.CutPrefix(path, "~")
	switch {
	case path == "system" && strings.HasSuffix(k.name, ".sslrootcert"): // the machine's own authorities
	case inHome && (rest == "" || rest[0] == '/'):
		if l.env["HOME"] == "" {
			l.fail(o, k.name, "found %s, but HOME is not set: write the path out", describe(path))
		}
		return filepath.Join(l.env["HOME"], rest)
	case o.File != "" && path != "" && !filepath.IsAbs(path):
		return filepath.Join(filepath.Dir(o.File), path)
	}
	return path
}

func (l *loader) readFlags() {
	l.layer++
	for _, f := range l.options.Flags {
		k := l.byName[f.Key]
		l.set(k, k.parse(f.Value), Origin{Flag: f.Name})
	}
}

func (l *loader) readPasswordFiles() {
	for _, name := range databaseNames {
		d := l.databases[name]
		l.readPasswordFile("databases."+name+".password", &d.Password, &d.PasswordFile)
	}
	l.readPasswordFile("mail.password", &l.cfg.Mail.Password, &l.cfg.Mail.PasswordFile)
	l.checkPassFile()
}

// checkPassFile warns about libpq's password file if the driver finds the password in it. psql ignores one that others
// can read.
func (l *loader) checkPassFile() {
	path := l.env["PGPASSFILE"]
	if home := l.env["HOME"]; path == "" && home != "" {
		path = filepath.Join(home, ".pgpass")
	}
	d := l.databases["default"]
	info, err := os.Stat(path)
	if d.Password != "" || err != nil || !info.Mode().IsRegular() {
		return
	}
	if file, err := pgpassfile.ReadPassfile(path); err == nil && slices.ContainsFunc(file.Entries, isFor(d)) {
		l.warnReadable(path, info.Mode())
	}
}

// isFor returns a function that reports whether an entry of libpq's password file is for d. What d leaves to defaults,
// such as the account's name, counts as equal.
func isFor(d *Database) func(*pgpassfile.Entry) bool {
	host := cmp.Or(d.Host, "localhost")
	if strings.HasPrefix(host, "/") { // a socket
		host = "localhost"
	}
	equal := func(pattern, value string) bool { return pattern == "*" || pattern == value || value == "" }
	return func(e *pgpassfile.Entry) bool {
		return equal(e.Hostname, host) && equal(e.Port, strconv.Itoa(d.Port)) &&
			equal(e.Database, cmp.Or(d.Name, d.User)) && equal(e.Username, d.User)
	}
}

// readPasswordFile sets the password from the file, unless a later layer sets the password itself: then the file is not
// used.
func (l *loader) readPasswordFile(name string, password *Secret, file *string) {
	fileKey := name + "_file"
	if *file == "" {
		return
	}
	if *password != "" {
		used, other := fileKey, name
		if l.cfg.Origins[name].layer > l.cfg.Origins[fileKey].layer {
			used, other, *file = name, fileKey, ""
		}
		l.warn("%s is set (%s) and so is %s (%s): the former is used; remove one.", used, l.cfg.Origins[used], other, l.cfg.Origins[other])
	}
	if *file == "" { // the password itself is used
		return
	}
	text, mode, err := db.ReadSecret(*file)
	if err != nil {
		l.fail(l.cfg.Origins[fileKey], fileKey, "%v", err)
		return
	}
	l.warnReadable(*file, mode)
	*password = text
	l.cfg.Origins[name] = Origin{File: *file}
}

// warnReadable warns about a file with a password that other users can read.
func (l *loader) warnReadable(path string, mode fs.FileMode) {
	if runtime.GOOS != "windows" && mode.Perm()&0o044 != 0 {
		l.warn("%s holds a password and can be read by others (mode %04o): chmod 600 %s", path, mode.Perm(), path)
	}
}

// checkCombinations rejects values that are valid by themselves, but not together. If a value may be in a part of the
// file that could not be read, it reports nothing.
func (l *loader) checkCombinations() {
	if l.broken {
		return
	}
	for _, name := range databaseNames {
		l.checkDatabase("databases."+name+".", l.databases[name])
	}
	if m := l.cfg.Monitor; m.Warn > m.Critical {
		l.conflict("monitor.warn", "monitor.critical", "%d (%s) is more than critical, %d (%s): the warning must come first",
			m.Warn, l.cfg.Origins["monitor.warn"], m.Critical, l.cfg.Origins["monitor.critical"])
	}
	if s := l.cfg.Server; s.Drain > s.ShutdownTimeout/2 {
		l.conflict("server.drain", "server.shutdown_timeout", "%s (%s) is more than half of shutdown_timeout, %s (%s): "+
			"requests under way would have no time left; raise shutdown_timeout to twice drain, or more",
			brief(s.Drain), l.cfg.Origins["server.drain"], brief(s.ShutdownTimeout), l.cfg.Origins["server.shutdown_timeout"])
	}
	if r := l.databases["replica"]; l.hasReplica() && r.Host == "" && r.Hosts == "" {
		l.failUnlessRefused(l.replicaOrigin(), replicaHost, "is missing: name the replica's host, or several as hosts", replicaHost)
	}
	l.checkMail(l.cfg.Mail)
}

const replicaHost = "databases.replica.host"

// inherit copies the primary's settings and their origins to the replica, except for the server's address.
func (l *loader) inherit() {
	if !l.hasReplica() {
		return
	}
	const replica, primary = "databases.replica.", "databases.default."
	own := map[string]bool{
		"host": true, "hosts": true, "port": true, "target_session_attrs": true, "max_lag": true,
		"pooler": true, "direct_host": true, "direct_port": true,
	}
	if l.isSet(replica+"password") || l.isSet(replica+"password_file") {
		own["password"], own["password_file"] = true, true
	}
	for _, k := range l.keys {
		if name, is := strings.CutPrefix(k.name, replica); is && !own[name] && !l.isSet(k.name) {
			reflect.ValueOf(k.target).Elem().Set(reflect.ValueOf(l.byName[primary+name].target).Elem())
			if o, set := l.cfg.Origins[primary+name]; set {
				o.inherited = true
				l.cfg.Origins[k.name] = o
			}
		}
	}
}

// chooseHosts uses the later of host and hosts. host and port become the first of hosts, for code that needs a single
// one.
func (l *loader) chooseHosts() {
	for _, name := range databaseNames {
		d, key := l.databases[name], "databases."+name+".host"
		one, many := l.cfg.Origins[key], l.cfg.Origins[key+"s"]
		switch {
		case d.Hosts == "":
		case one.layer > many.layer:
			d.Hosts = ""
			delete(l.cfg.Origins, key+"s")
		case one.layer == many.layer:
			l.fail(one, key, "is set, and so is hosts (%s): write one of them", many)
		default:
			list := d.Hosts.List()
			for i, item := range list {
				host, port := db.SplitHost(item)
				list[i] = net.JoinHostPort(host, cmp.Or(port, strconv.Itoa(d.Port)))
			}
			d.Hosts = db.Hosts(strings.Join(list, ","))
			host, port := db.SplitHost(list[0])
			d.Host = host
			d.Port, _ = strconv.Atoi(port) // the format has been validated
		}
	}
}

func (l *loader) checkDatabase(prefix string, d *Database) {
	if (d.SSLCert == "") != (d.SSLKey == "") {
		l.conflict(prefix+"sslcert", prefix+"sslkey", "sslcert and sslkey go together: set both, or neither")
	}
	if d.Pooler != "" && d.Options != "" {
		l.conflict(prefix+"options", prefix+"pooler", "a pooler refuses the options of a login: "+
			"use ALTER ROLE … SET in the database instead, or connect past the pooler")
	}
	l.checkBudget(prefix, d)
	if low, high := prefix+"pool.min_size", prefix+"pool.max_size"; d.Pool.MaxSize != db.Auto && d.Pool.MinSize > d.Pool.MaxSize {
		l.conflict(low, high, "%d (%s) is more than max_size, %d (%s)",
			d.Pool.MinSize, l.cfg.Origins[low], d.Pool.MaxSize, l.cfg.Origins[high])
	}
	if d.Pooler != "" && d.DirectHost == "" {
		l.warn("%spooler is set (%s) without direct_host: migrations and monitoring go through the pooler, "+
			"where advisory locks don't hold; set direct_host and direct_port to PostgreSQL's own.",
			prefix, l.cfg.Origins[prefix+"pooler"])
	}
	l.warnOfVoid(prefix, d)
}

// warnOfVoid warns about settings without effect. A file's settings for another strategy are no mistake: the strategy
// can be switched. An environment variable is meant for now.
func (l *loader) warnOfVoid(prefix string, d *Database) {
	if d.Pooler != "" && d.StatementTimeout > 0 {
		l.warn("%sstatement_timeout (%s) has no effect: a pooler refuses it at the login, so it is not sent. Use ALTER ROLE … SET "+
			"statement_timeout in the database instead.", prefix, l.cfg.Origins[prefix+"statement_timeout"])
	}
	byFlag := l.cfg.Origins[prefix+"pooler"].Flag != "" // the private server's login, in place of the configured one
	if d.Pooler == "" && !byFlag && (l.isSet(prefix+"direct_host") || l.isSet(prefix+"direct_port")) {
		l.warn("%sdirect_host and direct_port have no effect without pooler.", prefix)
	}
	for _, void := range []struct{ key, strategy, instead string }{
		{"pool.max_size", db.PerRequest, "per_request.max_size bounds this strategy"},
		{"pool.max_size", db.Persistent, "persistent.workers bounds this strategy"},
		{"persistent.conn_max_age", db.Pool, `strategy = "persistent" gives connections an age; the pool keeps them for pool.max_lifetime`},
		{"persistent.conn_max_age", db.PerRequest, "each request has a new connection, as with CONN_MAX_AGE = 0"},
		{"persistent.conn_max_age", db.Multiplex, `strategy = "persistent" gives connections an age`},
	} {
		if o := l.cfg.Origins[prefix+void.key]; o.Variable != "" && !o.inherited && d.Strategy == void.strategy {
			l.warn("%s (%s%s) has no effect with strategy = %q: %s.", o.Variable, prefix, void.key, d.Strategy, void.instead)
		}
	}
}

func (l *loader) isSet(name string) bool {
	_, is := l.cfg.Origins[name]
	return is
}

func (l *loader) checkBudget(prefix string, d *Database) {
	const budget = "fleet.budget"
	size, least := prefix+"pool.max_size", prefix+"pool.min_size"
	switch {
	case d.Pool.MaxSize != db.Auto:
		if d.Budget > 0 && prefix == "databases.default." {
			l.warn("%s is set (%s), and %s is a number: the budget is in force only with %[3]s = \"auto\".",
				budget, l.cfg.Origins[budget], size)
		}
	case d.Pooler != "":
		l.conflict(size, prefix+"pooler", "%v", db.ErrPooledBudget)
	case d.Budget > 0 && d.Pool.MinSize > d.Budget && !(l.cfg.Origins[least].inherited && l.cfg.Origins[size].inherited):
		l.conflict(least, budget, "%d (%s) is more than the whole budget, %d (%s)",
			d.Pool.MinSize, l.cfg.Origins[least], d.Budget, l.cfg.Origins[budget])
	case d.Budget > 0 && d.Budget < l.cfg.Server.Replicas && prefix == "databases.default.":
		l.warn("%s is %d (%s), and server.replicas is %d: with fewer connections than processes they take turns of two seconds. "+
			"Set it to %[4]d at least.", budget, d.Budget, l.cfg.Origins[budget], l.cfg.Server.Replicas)
	}
}

func (l *loader) checkMail(m Mail) {
	need := func(name string, missing bool) {
		if missing {
			l.conflict("mail.backend", name, "is %q, which needs %s: set it, or set backend to \"none\"", m.Backend, name)
		}
	}
	need("mail.host", m.Backend == "smtp" && m.Host == "")
	need("mail.dir", m.Backend == "file" && m.Dir == "")
	need("mail.admins", m.Backend != "none" && len(m.Admins) == 0)
}

// conflict reports two conflicting keys, at the position of the first. Of a replica only what it sets itself counts: the
// rest has been reported for the primary.
func (l *loader) conflict(name, other, format string, args ...any) {
	first, second := l.cfg.Origins[name], l.cfg.Origins[other]
	if first.inherited {
		first, second = second, first
	}
	if o := cmp.Or(first, second); !o.inherited {
		l.failUnlessRefused(o, name, fmt.Sprintf(format, args...), name, other)
	}
}

// failUnlessRefused reports a mistake involving the keys, unless one has been rejected: then it has no value to check.
func (l *loader) failUnlessRefused(o Origin, name, message string, keys ...string) {
	if !slices.ContainsFunc(l.mistakes, func(m *Mistake) bool { return slices.Contains(keys, m.Key) }) {
		l.fail(o, name, "%s", message)
	}
}
