package config

import "time"

// Config is everything that the file and the environment can set. Load returns it complete: every field
// holds its default, or what was asked for, within its bounds.
type Config struct {
	Databases map[string]Database `toml:"databases"`
	Server    Server              `toml:"server"`
	Admin     Admin               `toml:"admin"`
	Mail      Mail                `toml:"mail"`
	Sentry    Sentry              `toml:"sentry"`
	Test      Test                `toml:"test"`
	Monitor   Monitor             `toml:"monitor"`
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
type Database struct {
	Name             string        `toml:"name"`
	User             string        `toml:"user"`
	Password         Secret        `toml:"password"`
	PasswordFile     string        `toml:"password_file"`
	Host             string        `toml:"host"` // a name, an address, or the folder of a socket
	Port             int           `toml:"port"`
	SSLMode          string        `toml:"sslmode"`
	ApplicationName  string        `toml:"application_name"` // the strategy is appended: "ddtb/pool"
	ConnectTimeout   time.Duration `toml:"connect_timeout"`
	Keepalive        Keepalive     `toml:"keepalive"`
	StatementTimeout time.Duration `toml:"statement_timeout"` // 0: the server's own

	Strategy   string `toml:"strategy"`
	Pooler     string `toml:"pooler"`      // "" or "pgbouncer"
	DirectHost string `toml:"direct_host"` // for what a pooler in transaction mode can't carry
	DirectPort int    `toml:"direct_port"`

	Pool       Pool       `toml:"pool"`
	Persistent Persistent `toml:"persistent"`
	PerRequest PerRequest `toml:"per_request"`
}

// Keepalive is TCP's: after Idle a probe every Interval, Count times.
type Keepalive struct {
	Idle     time.Duration `toml:"idle"`
	Interval time.Duration `toml:"interval"`
	Count    int           `toml:"count"`
}

// Pool is the strategy "pool": at most MaxSize connections, and a bounded queue before them.
type Pool struct {
	MinSize           int           `toml:"min_size"`
	MaxSize           int           `toml:"max_size"`
	Timeout           time.Duration `toml:"timeout"`     // how long a waiter waits
	MaxWaiting        int           `toml:"max_waiting"` // 0: no bound
	MaxLifetime       time.Duration `toml:"max_lifetime"`
	MaxIdle           time.Duration `toml:"max_idle"`
	HealthCheckPeriod time.Duration `toml:"health_check_period"`
	LeakAfter         time.Duration `toml:"leak_after"`    // 0: never told
	ReclaimAfter      time.Duration `toml:"reclaim_after"` // 0: never taken back
	Hold              string        `toml:"hold"`
}

// Forever is the ConnMaxAge that is written "none": the connection is kept as long as it works.
const Forever = time.Duration(-1)

// Persistent is the strategy "persistent": each worker keeps a connection of its own.
type Persistent struct {
	ConnMaxAge time.Duration `toml:"conn_max_age"` // Forever, written "none"; 0 closes at the request's end
	Workers    int           `toml:"workers"`      // 0: one for each client connection
	Reap       bool          `toml:"reap"`         // close the connection of a worker that is gone
}

// PerRequest is the strategy "per-request": a new connection for each request that queries.
type PerRequest struct {
	MaxSize int           `toml:"max_size"` // 0: no bound
	Timeout time.Duration `toml:"timeout"`  // how long a request waits for its turn, with MaxSize
}

// Server is where and how the application listens.
type Server struct {
	Addr            string        `toml:"addr"`
	Replicas        int           `toml:"replicas"` // how many processes like this one share the database
	StrictBudget    bool          `toml:"strict_budget"`
	TrustedProxies  []string      `toml:"trusted_proxies"` // addresses or CIDR ranges
	ShutdownTimeout time.Duration `toml:"shutdown_timeout"`
	BaseURL         string        `toml:"base_url"`
	SecretKeyFile   string        `toml:"secret_key_file"`
}

// Admin is the part for staff.
type Admin struct {
	SessionAge time.Duration `toml:"session_age"`
}

// Mail is the way in which failures are told to Admins.
type Mail struct {
	Backend       string    `toml:"backend"` // "smtp", "console", "file" or "none"
	Host          string    `toml:"host"`
	Port          int       `toml:"port"`
	User          string    `toml:"user"`
	PasswordFile  string    `toml:"password_file"`
	TLS           string    `toml:"tls"` // "starttls", "tls" or "none"
	Dir           string    `toml:"dir"` // of the file backend
	From          string    `toml:"from"`
	Admins        []string  `toml:"admins"`
	SubjectPrefix string    `toml:"subject_prefix"`
	Limit         MailLimit `toml:"limit"`
}

// MailLimit bounds mails and Sentry events alike.
type MailLimit struct {
	Window  time.Duration `toml:"window"`   // one mail a fingerprint in it
	PerHour int           `toml:"per_hour"` // over all fingerprints
}

// Sentry is off without a DSN.
type Sentry struct {
	DSN              Secret  `toml:"dsn"`
	Environment      string  `toml:"environment"`
	TracesSampleRate float64 `toml:"traces_sample_rate"`
	Spotlight        bool    `toml:"spotlight"`
}

// Test bounds the test endpoints, which are off unless Enabled.
type Test struct {
	Enabled    bool          `toml:"enabled"`
	MaxThreads int           `toml:"max_threads"`
	MaxHold    time.Duration `toml:"max_hold"`
}

// Monitor sets the sampler behind the dashboard and the verdict of health.
type Monitor struct {
	Interval  time.Duration `toml:"interval"`
	Warn      int           `toml:"warn"`       // % of the usable slots
	Critical  int           `toml:"critical"`   // % of the usable slots
	IdleRatio int           `toml:"idle_ratio"` // % of the sessions that are idle
}

// Secret is a string that never prints: not in a log, an error, JSON, or TOML.
type Secret string

const redacted = "[redacted]"

// String keeps the secret out of fmt and log output.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString keeps it out of %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText keeps it out of JSON, TOML and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal is the secret itself, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }
