// Package config turns the configuration file, the environment and the flags into one Config, complete and
// within bounds, or into a list of every mistake in them.
//
// It promises that
//
//   - a key is set by the last of: its default (see Default), the file, the environment, a flag;
//   - nothing is ignored silently: an unknown key, a wrong type, a value out of bounds, a key set twice and a
//     combination that can't be are each refused with file, line and column, or with the variable's name, what
//     was found, what is allowed, and the nearest right name;
//   - a secret never appears in a message, a log or any other output: see Secret;
//   - every value tells where it came from: see Config.Origins and WriteTOML.
//
// It is the only package that reads the environment (FromOS), and it must not know what the values are for: it
// opens no connection, and starts nothing but Watch.
package config

import "time"

// Config is everything that the file and the environment can set. Load returns it complete: every field
// holds its default, or what was asked for, within its bounds.
//
// The tag "toml" names the key, and the names of the variables derive from it: pool.max_size of the default
// database is DDTB_DATABASES_DEFAULT_POOL_MAX_SIZE. The tag "allow" is the bound, in the words of values.go.
type Config struct {
	Databases map[string]Database `toml:"databases"` // "default", always, and "replica" if the file has one
	Server    Server              `toml:"server"`
	Admin     Admin               `toml:"admin"`
	Mail      Mail                `toml:"mail"`
	Sentry    Sentry              `toml:"sentry"`
	Tracing   Tracing             `toml:"tracing"`
	Test      Test                `toml:"test"`
	Monitor   Monitor             `toml:"monitor"`

	File     string            `toml:"-"` // the file that was read, or "" when there was none
	Origins  map[string]Origin `toml:"-"` // by key, "databases.default.port"; a key that is not in it holds its default
	Warnings []string          `toml:"-"` // for a person to read, one sentence each
}

// The three strategies: by which rule a request gets its connection.
const (
	StrategyPool       = "pool"
	StrategyPersistent = "persistent"
	StrategyPerRequest = "per-request"
)

// Hold says how long a request keeps a lease of the pool.
const (
	HoldQuery   = "query"   // given back between queries
	HoldRequest = "request" // kept to the end of the request, as Django does
)

// Database is one PostgreSQL database, and how requests get their connections to it.
//
// Name, User, Host and Password may be empty, and then mean what they mean to libpq: the database is called as
// the user, the user as the account of this process, the host is the folder of the Unix socket (where there is
// none, localhost), and the password is looked up in PGPASSFILE or ~/.pgpass. pgx does these four when it
// connects; so do PGSSLROOTCERT, PGSSLCERT, PGSSLKEY, PGOPTIONS and PGSERVICE take effect there, not here.
type Database struct {
	Name             string        `toml:"name" allow:"identifier"`
	User             string        `toml:"user" allow:"identifier"`
	Password         Secret        `toml:"password"` // the content of PasswordFile, if that is set
	PasswordFile     string        `toml:"password_file" allow:"path"`
	Host             string        `toml:"host" allow:"host"` // a name, an address, or the folder of a socket
	Port             int           `toml:"port" allow:"1..65535"`
	SSLMode          string        `toml:"sslmode" allow:"disable|allow|prefer|require|verify-ca|verify-full"`
	ApplicationName  string        `toml:"application_name" allow:"application"` // the strategy is appended: "ddtb/pool"
	ConnectTimeout   time.Duration `toml:"connect_timeout" allow:"100ms..5m"`
	Keepalive        Keepalive     `toml:"keepalive"`
	StatementTimeout time.Duration `toml:"statement_timeout" allow:"0|1ms..24h"` // 0: the server's own

	Strategy   string `toml:"strategy" allow:"pool|persistent|per-request"`
	Pooler     string `toml:"pooler" allow:"|pgbouncer"` // "" or "pgbouncer"
	DirectHost string `toml:"direct_host" allow:"host"`  // for what a pooler in transaction mode can't carry
	DirectPort int    `toml:"direct_port" allow:"1..65535"`

	Pool       Pool       `toml:"pool"`
	Persistent Persistent `toml:"persistent"`
	PerRequest PerRequest `toml:"per_request"`
}

// SameServer tells whether both reach the same database in the same way. Their strategies may differ.
func (d Database) SameServer(other Database) bool {
	for _, x := range []*Database{&d, &other} {
		x.Strategy, x.Pool, x.Persistent, x.PerRequest = "", Pool{}, Persistent{}, PerRequest{}
	}
	return d == other
}

// Keepalive is TCP's: after Idle a probe every Interval, Count times.
type Keepalive struct {
	Idle     time.Duration `toml:"idle" allow:"1s..2h"`
	Interval time.Duration `toml:"interval" allow:"1s..10m"`
	Count    int           `toml:"count" allow:"1..100"`
}

// Pool is the strategy "pool": at most MaxSize connections, and a bounded queue before them.
type Pool struct {
	MinSize           int           `toml:"min_size" allow:"0..10000"`
	MaxSize           int           `toml:"max_size" allow:"1..10000"`
	Timeout           time.Duration `toml:"timeout" allow:"1ms..10m"`      // how long a waiter waits
	MaxWaiting        int           `toml:"max_waiting" allow:"0..100000"` // 0: no bound
	MaxLifetime       time.Duration `toml:"max_lifetime" allow:"1s..720h"`
	MaxIdle           time.Duration `toml:"max_idle" allow:"1s..720h"`
	HealthCheckPeriod time.Duration `toml:"health_check_period" allow:"100ms..1h"`
	LeakAfter         time.Duration `toml:"leak_after" allow:"0|100ms..24h"`    // 0: never told
	ReclaimAfter      time.Duration `toml:"reclaim_after" allow:"0|100ms..24h"` // 0: never taken back
	Hold              string        `toml:"hold" allow:"query|request"`
}

// Forever is the ConnMaxAge that is written "none": the connection is kept as long as it works.
const Forever = time.Duration(-1)

// Persistent is the strategy "persistent": each worker keeps a connection of its own.
type Persistent struct {
	ConnMaxAge time.Duration `toml:"conn_max_age" allow:"none|0..8760h"` // 0 closes it at the request's end
	Workers    int           `toml:"workers" allow:"0..10000"`           // 0: one for each client connection
	Reap       bool          `toml:"reap"`                               // close the connection of a worker that is gone
}

// PerRequest is the strategy "per-request": a new connection for each request that queries.
type PerRequest struct {
	MaxSize int           `toml:"max_size" allow:"0..10000"` // 0: no bound
	Timeout time.Duration `toml:"timeout" allow:"1ms..10m"`  // how long a request waits for its turn, with MaxSize
}

// Server is where and how the application listens.
type Server struct {
	Addr            string        `toml:"addr" allow:"addr"`
	Replicas        int           `toml:"replicas" allow:"1..1000"` // how many processes like this one share the database
	StrictBudget    bool          `toml:"strict_budget"`
	TrustedProxies  []string      `toml:"trusted_proxies" allow:"network"` // addresses or CIDR ranges
	ShutdownTimeout time.Duration `toml:"shutdown_timeout" allow:"100ms..10m"`
	BaseURL         string        `toml:"base_url" allow:"url"`
	AllowedHosts    []string      `toml:"allowed_hosts" allow:"host"` // by which the test endpoints may be called
	SecretKeyFile   string        `toml:"secret_key_file" allow:"path"`
}

// Admin is the part for staff.
type Admin struct {
	SessionAge time.Duration `toml:"session_age" allow:"1m..8760h"`
}

// Mail is the way in which failures are told to Admins.
type Mail struct {
	Backend       string    `toml:"backend" allow:"smtp|console|file|none"`
	Host          string    `toml:"host" allow:"host"`
	Port          int       `toml:"port" allow:"1..65535"`
	User          string    `toml:"user"`
	PasswordFile  string    `toml:"password_file" allow:"path"`
	Password      Secret    `toml:"-"` // the content of PasswordFile
	TLS           string    `toml:"tls" allow:"starttls|tls|none"`
	Dir           string    `toml:"dir" allow:"path"` // of the file backend
	From          string    `toml:"from" allow:"mail"`
	Admins        []string  `toml:"admins" allow:"mail"`
	SubjectPrefix string    `toml:"subject_prefix"`
	Limit         MailLimit `toml:"limit"`
}

// MailLimit bounds mails and Sentry events alike.
type MailLimit struct {
	Window  time.Duration `toml:"window" allow:"1s..24h"`    // one mail a fingerprint in it
	PerHour int           `toml:"per_hour" allow:"1..10000"` // over all fingerprints
}

// Sentry is off without a DSN.
type Sentry struct {
	DSN              Secret  `toml:"dsn" allow:"dsn"`
	Environment      string  `toml:"environment" allow:"environment"`
	TracesSampleRate float64 `toml:"traces_sample_rate" allow:"0..1"`
	Spotlight        bool    `toml:"spotlight"`
}

// Tracing sends OpenTelemetry traces, and is off without an Endpoint.
type Tracing struct {
	Endpoint   string  `toml:"endpoint" allow:"url"` // of an OTLP/HTTP collector, to which /v1/traces is added
	Headers    Secret  `toml:"headers" allow:"headers"`
	SampleRate float64 `toml:"sample_rate" allow:"0..1"` // of the requests that come without a traceparent
}

// HeaderMap is what Headers says, decoded.
func (t Tracing) HeaderMap() map[string]string {
	headers, _ := parseHeaders(t.Headers.Reveal()) // Load has refused what can't be read
	return headers
}

// Test bounds the test endpoints, which are off unless Enabled.
type Test struct {
	Enabled    bool          `toml:"enabled"`
	MaxThreads int           `toml:"max_threads" allow:"1..10000"`
	MaxHold    time.Duration `toml:"max_hold" allow:"1ms..10m"`
}

// Monitor sets the sampler behind the dashboard and the verdict of health.
type Monitor struct {
	Interval  time.Duration `toml:"interval" allow:"100ms..1h"`
	Warn      int           `toml:"warn" allow:"1..100"`       // % of the usable slots
	Critical  int           `toml:"critical" allow:"1..100"`   // % of the usable slots
	IdleRatio int           `toml:"idle_ratio" allow:"1..100"` // % of the sessions that are idle
}
